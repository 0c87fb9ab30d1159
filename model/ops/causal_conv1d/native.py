"""The step in C (step.c)."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.ops._native import INT, POINTER, SIZE, address, load, rows

ARGUMENTS = (
    *(SIZE,) * 3,  # batch, channels, width
    *(POINTER, SIZE),  # x
    *(POINTER, SIZE),  # state before
    *(POINTER, POINTER, INT),  # weight, bias, activation
    *(POINTER, POINTER),  # state after, y
    INT,  # threads
)


@cache
def kernel() -> Callable[..., None] | None:
    """`causal_conv1d_step` of step.c; None where it cannot be had."""
    return load(Path(__file__).with_name("step.c"), "causal_conv1d_step", ARGUMENTS)


def step(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None, activate: bool) -> tuple[Tensor, Tensor]:
    """As `causal_conv1d_step`, for fp32 tensors in the CPU's memory."""
    function = kernel()
    assert function is not None
    x, state, weight = rows(x), rows(state), weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    y, after = x.new_empty(x.shape), x.new_empty(state.shape)
    function(
        *(*x.shape, weight.shape[1]),
        *(x.data_ptr(), x.stride(0)),
        *(state.data_ptr(), state.stride(0)),
        weight.data_ptr(),
        *(address(bias), activate),
        after.data_ptr(),
        y.data_ptr(),
        torch.get_num_threads(),
    )
    return y, after
