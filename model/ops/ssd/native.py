"""The step in C (step.c)."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.ops._native import FLOAT, INT, POINTER, SIZE, address, load, rows

ARGUMENTS = (
    *(SIZE,) * 5,  # batch, nheads, headdim, ngroups, dstate
    *(POINTER, SIZE),  # x
    *(POINTER, SIZE),  # dt
    POINTER,  # A
    *(POINTER, SIZE),  # B
    *(POINTER, SIZE),  # C
    *(POINTER, POINTER),  # D, dt_bias
    *(INT, FLOAT, FLOAT),  # softplus and limits of dt
    *(POINTER, POINTER),  # state, y
    INT,  # threads
)


@cache
def kernel() -> Callable[..., None] | None:
    """`ssd_step` of step.c; None where it cannot be had."""
    return load(Path(__file__).with_name("step.c"), "ssd_step", ARGUMENTS)


def step(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    dt_limit: tuple[float, float],
) -> Tensor:
    """As `ssd_step`, for fp32 tensors in the CPU's memory; returns y."""
    function = kernel()
    assert function is not None
    x, dt, A, B, C = rows(x), rows(dt), A.contiguous(), rows(B), rows(C)
    D = None if D is None else D.contiguous()
    dt_bias = None if dt_bias is None else dt_bias.contiguous()
    y = x.new_empty(x.shape)
    function(
        *x.shape,
        *B.shape[1:],
        *(x.data_ptr(), x.stride(0)),
        *(dt.data_ptr(), dt.stride(0)),
        A.data_ptr(),
        *(B.data_ptr(), B.stride(0)),
        *(C.data_ptr(), C.stride(0)),
        address(D),
        address(dt_bias),
        *(dt_softplus, *dt_limit),
        state.data_ptr(),
        y.data_ptr(),
        torch.get_num_threads(),
    )
    return y
