"""The gated RMSNorm on a CPU in C (c/): one pass over memory in each direction."""

import ctypes
from functools import cache, partial

import torch
from torch import Tensor

from model.ops._native import FLOAT, INT, POINTER, SIZE, Works, address, empty, functions, whole
from model.ops._selfcheck import trusted
from model.ops.gated_rmsnorm import selfcheck

ROWS = 32
"""Of a task, in C too."""

TOLERANCE = 1e-5
"""Largest difference from torch, relative to the largest value, that rounding explains on a small input."""


class _Norm(ctypes.Structure):
    _fields_ = (
        *((name, SIZE) for name in ("rows", "d", "group")),
        *((name, POINTER) for name in ("x", "weight", "gate")),
        *(("eps", FLOAT), ("before", INT)),
    )


@cache
def _library() -> ctypes.CDLL | None:
    arguments = {"norm_forward": [POINTER, POINTER, INT], "norm_backward": [*[POINTER] * 5, INT]}
    return functions("gated-rmsnorm", __file__, arguments)


@Works
def works() -> bool:
    """Whether C does on a small input what torch does."""
    if _library() is None:
        return False
    compare = partial(selfcheck.compare, forward, backward, 70, "cpu", (torch.float32,) * 4, 20)
    orders = (partial(compare, norm_before_gate) for norm_before_gate in (False, True))
    return all(trusted("the gated RMSNorm's C functions", order, TOLERANCE) for order in orders)


def forward(
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
    out_dtype: torch.dtype,
) -> Tensor:
    """Return (..., d) in `out_dtype`."""
    norm, _held = _norm(x, weight, gate, eps, group_size, norm_before_gate)
    y = empty(*x.shape)
    _call("norm_forward", norm, y)
    return y.to(out_dtype)


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and gate (empty without one)."""
    norm, _held = _norm(x, weight, gate, eps, group_size, norm_before_gate)
    dy, dx = whole(grad_y), empty(*x.shape)
    d_gate = None if gate is None else empty(*gate.shape)
    parts = empty(-(-norm.rows // ROWS), norm.d)
    _call("norm_backward", norm, dy, dx, d_gate, parts)
    d_weight = parts.sum(0).to(weight.dtype)
    return dx.to(x.dtype), d_weight, x.new_empty(0) if gate is None or d_gate is None else d_gate.to(gate.dtype)


def _norm(
    x: Tensor, weight: Tensor, gate: Tensor | None, eps: float, group_size: int, norm_before_gate: bool
) -> tuple[_Norm, list[Tensor | None]]:
    """The structure, and what it points to."""
    tensors = [None if tensor is None else whole(tensor) for tensor in (x, weight, gate)]
    d = len(weight)
    return _Norm(x.numel() // d, d, group_size, *map(address, tensors), eps, norm_before_gate), tensors


def _call(function: str, norm: _Norm, *tensors: Tensor | None) -> None:
    getattr(_library(), function)(ctypes.addressof(norm), *map(address, tensors), torch.get_num_threads())
