"""The SSD on a CPU in C (c/): chunks of 64 positions, whose matrices stay in a core's cache."""

import ctypes
from functools import cache

import torch
from torch import Tensor

from model.ops._native import INT, POINTER, SIZE, Works, address, empty, functions, whole
from model.ops._selfcheck import trusted
from model.ops.ssd import selfcheck
from model.ops.ssd.torch import step_sizes, step_sizes_backward

LENGTH = 64
"""Positions of a chunk, in C too."""

TOLERANCE = 1e-4
"""Largest difference from torch, relative to the largest value, that rounding explains on a small input."""


class _Scan(ctypes.Structure):
    _fields_ = (
        *((name, SIZE) for name in ("batch", "seqlen", "nheads", "headdim", "ngroups", "dstate")),
        *((name, POINTER) for name in ("x", "step", "A", "B", "C", "D", "seq_idx")),
    )


class _Gradients(ctypes.Structure):
    _fields_ = tuple((name, POINTER) for name in ("dy", "d_final", "dx", "d_step", "dB", "dC", "d_initial", "dA", "dD"))


@cache
def _library() -> ctypes.CDLL | None:
    arguments = {"ssd_forward": [*[POINTER] * 5, INT], "ssd_backward": [*[POINTER] * 4, INT]}
    return functions("ssd", __file__, arguments)


def run(inputs: tuple, documents: Tensor, options: tuple, grads: tuple) -> tuple[Tensor, ...]:
    """Outputs and gradients, for the self-check."""
    y, final, states = forward(*selfcheck.flat(inputs, None, documents, options))
    return y, final, *backward(*selfcheck.flat(grads, inputs, documents, states, options))


def chunks(seqlen: int) -> int:
    """Whose states are kept."""
    return -(-seqlen // LENGTH)


@Works
def works() -> bool:
    """Whether C does on a small input what torch does."""
    if _library() is None:
        return False
    return trusted("the SSD's C functions", lambda: selfcheck.compare(run, "cpu", torch.float32, 20, 12), TOLERANCE)


def forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    dt_softplus: bool,
    dt_limit: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y (b, seqlen, h, p), in x's dtype, final state (b, h, p, n) and chunk-start states (b, c, h, n, p)."""
    step = step_sizes(dt, dt_bias, dt_softplus, dt_limit, torch.float32)
    scan, _held = _scan(x, step, A, B, C, D, seq_idx)
    batch, seqlen, nheads, headdim = x.shape
    dstate = B.shape[-1]
    y, final = empty(*x.shape), empty(batch, nheads, headdim, dstate)
    states = empty(batch, chunks(seqlen), nheads, dstate, headdim)
    initial = None if initial_state is None else whole(initial_state)
    _call("ssd_forward", scan, *map(address, (initial, states, final, y)))
    return y.to(x.dtype), final, states


def backward(
    grad_y: Tensor | None,
    grad_final_state: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    seq_idx: Tensor | None,
    states: Tensor,
    dt_softplus: bool,
    dt_limit: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B, C, D, dt_bias and initial_state."""
    step = step_sizes(dt, dt_bias, dt_softplus, dt_limit, torch.float32)
    scan, _held = _scan(x, step, A, B, C, D, seq_idx)
    dy = empty(*x.shape).zero_() if grad_y is None else whole(grad_y)
    d_final = None if grad_final_state is None else whole(grad_final_state)
    dx, d_step, dB, dC = (empty(*tensor.shape) for tensor in (x, step, B, C))
    batch, count, nheads, dstate, headdim = states.shape
    d_initial, d_states = empty(batch, nheads, headdim, dstate), torch.empty_like(states)
    dA, dD = (empty(batch, count, nheads) for _ in range(2))
    gradients = _Gradients(*map(address, (dy, d_final, dx, d_step, dB, dC, d_initial, dA, dD)))
    _call("ssd_backward", scan, ctypes.addressof(gradients), *map(address, (states, d_states)))
    ddt = step_sizes_backward(d_step, dt, dt_bias, dt_softplus, dt_limit)
    d_bias = ddt.sum((0, 1))
    return (
        *(dx.to(x.dtype), ddt.to(dt.dtype), dA.sum((0, 1)).to(A.dtype), dB.to(B.dtype), dC.to(C.dtype)),
        dD.sum((0, 1)).to(A.dtype if D is None else D.dtype),
        d_bias if dt_bias is None else d_bias.to(dt_bias.dtype),
        d_initial,
    )


def _scan(
    x: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, seq_idx: Tensor | None
) -> tuple[_Scan, list[Tensor | None]]:
    """The structure, and what it points to."""
    tensors = [None if tensor is None else whole(tensor) for tensor in (x, step, A, B, C, D)]
    tensors.append(None if seq_idx is None else whole(seq_idx, torch.int32))
    return _Scan(*x.shape, *B.shape[2:], *map(address, tensors)), tensors


def _call(function: str, scan: _Scan, *arguments: int | None) -> None:
    if getattr(_library(), function)(ctypes.addressof(scan), *arguments, torch.get_num_threads()):
        raise MemoryError("no memory for the scan")
