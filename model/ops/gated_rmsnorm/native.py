"""The gated RMSNorm on a CPU in C (c/): one pass over memory in each direction."""

import ctypes
from functools import cache, partial

import torch
from torch import Tensor

from model.ops._native import FLOAT, INT, POINTER, SIZE, Works, address, empty, functions, in_memory, whole
from model.ops._selfcheck import trusted
from model.ops.gated_rmsnorm import selfcheck

ROWS = 32
"""Of a task, in C too."""

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.01}
"""Largest difference from torch, relative to the largest value, that rounding explains on a small input."""


class _Norm(ctypes.Structure):
    _fields_ = (
        *((name, SIZE) for name in ("rows", "d", "group")),
        *((name, POINTER) for name in ("x", "weight", "gate")),
        *(("eps", FLOAT), ("before", INT)),
        *((name, INT) for name in ("half_x", "half_gate", "half_y")),
    )


@cache
def _library() -> ctypes.CDLL | None:
    arguments = {"norm_forward": [*[POINTER] * 3, INT], "norm_backward": [*[POINTER] * 6, INT]}
    return functions("gated-rmsnorm", __file__, arguments)


@Works
def works() -> bool:
    """Whether C does on a small input what torch does."""
    if _library() is None:
        return False
    return all(
        trusted(
            "the gated RMSNorm's C functions",
            partial(selfcheck.compare, forward, backward, 70, "cpu", (dtype,) * 4, 20, norm_before_gate),
            tolerance,
        )
        for dtype, tolerance in TOLERANCE.items()
        for norm_before_gate in (False, True)
    )


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
    norm, _held = _norm(x, weight, gate, out_dtype, eps, group_size, norm_before_gate)
    y = empty(*x.shape, dtype=in_memory(out_dtype))
    _call("norm_forward", norm, y, rooms=3)
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
    norm, _held = _norm(x, weight, gate, grad_y.dtype, eps, group_size, norm_before_gate)
    dy, dx = whole(grad_y, in_memory(grad_y.dtype)), empty(*x.shape, dtype=in_memory(x.dtype))
    d_gate = None if gate is None else empty(*gate.shape, dtype=in_memory(gate.dtype))
    parts = empty(-(-norm.rows // ROWS), norm.d)
    _call("norm_backward", norm, dy, dx, d_gate, parts, rooms=5)
    d_weight = parts.sum(0).to(weight.dtype)
    return dx.to(x.dtype), d_weight, x.new_empty(0) if gate is None or d_gate is None else d_gate.to(gate.dtype)


def _norm(
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    y_dtype: torch.dtype,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> tuple[_Norm, list[Tensor | None]]:
    """The structure, and what it points to."""
    tensors: list[Tensor | None] = [whole(x, in_memory(x.dtype)), whole(weight)]
    tensors.append(None if gate is None else whole(gate, in_memory(gate.dtype)))
    half = (dtype == torch.bfloat16 for dtype in (x.dtype, x.dtype if gate is None else gate.dtype, y_dtype))
    d = len(weight)
    return _Norm(x.numel() // d, d, group_size, *map(address, tensors), eps, norm_before_gate, *half), tensors


def _call(function: str, norm: _Norm, *tensors: Tensor | None, rooms: int) -> None:
    threads = torch.get_num_threads()
    tensors += (empty(threads, rooms, norm.group),)
    getattr(_library(), function)(ctypes.addressof(norm), *map(address, tensors), threads)
