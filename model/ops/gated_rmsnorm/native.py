"""The norm of a few rows in C (step.c)."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.ops._native import FLOAT, INT, POINTER, SIZE, address, load, rows

ARGUMENTS = (
    *(SIZE,) * 3,  # rows, d, channels per group
    *(POINTER, SIZE),  # x
    *(POINTER, SIZE),  # gate
    *(POINTER, FLOAT, INT),  # weight, eps, order
    *(POINTER, INT),  # y, threads
)


@cache
def kernel() -> Callable[..., None] | None:
    """`row_norm` of step.c; None where it cannot be had."""
    return load(Path(__file__).with_name("step.c"), "row_norm", ARGUMENTS)


def norm(x: Tensor, gate: Tensor | None, weight: Tensor, eps: float, group_size: int, norm_before_gate: bool) -> Tensor:
    """As `gated_rmsnorm`, for x (rows, d) in fp32 in the CPU's memory."""
    function = kernel()
    assert function is not None
    x, gate, weight = rows(x), None if gate is None else rows(gate), weight.contiguous()
    y = x.new_empty(x.shape)
    function(
        *(*x.shape, group_size),
        *(x.data_ptr(), x.stride(0)),
        *(address(gate), 0 if gate is None else gate.stride(0)),
        *(weight.data_ptr(), eps, norm_before_gate),
        *(y.data_ptr(), torch.get_num_threads()),
    )
    return y
