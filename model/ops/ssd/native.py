"""The SSD on a CPU in C (c/): chunks of 64 positions, whose matrices stay in a core's cache."""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.ops._compiler import load
from model.ops._selfcheck import trusted
from model.ops.ssd import selfcheck
from model.ops.ssd.torch import step_sizes, step_sizes_backward

LENGTH = 64
"""Positions of a chunk, in C too."""

TOLERANCE = 1e-4
"""Largest difference from torch, relative to the largest value, that rounding explains on a small input."""

_SIZE, _POINTER = ctypes.c_longlong, ctypes.c_void_p


class _Scan(ctypes.Structure):
    _fields_ = (
        *((name, _SIZE) for name in ("batch", "seqlen", "nheads", "headdim", "ngroups", "dstate")),
        *((name, _POINTER) for name in ("x", "step", "A", "B", "C", "D", "seq_idx")),
    )


class _Gradients(ctypes.Structure):
    _fields_ = tuple(
        (name, _POINTER) for name in ("dy", "d_final", "dx", "d_step", "dB", "dC", "d_initial", "dA", "dD")
    )


_ARGUMENTS = {
    "ssd_forward": (_POINTER, _POINTER, _POINTER, _POINTER, _POINTER, ctypes.c_int),
    "ssd_backward": (_POINTER, _POINTER, _POINTER, _POINTER, ctypes.c_int),
}


@cache
def _library() -> ctypes.CDLL | None:
    library = load("ssd", Path(__file__).with_name("c"))
    for name, arguments in _ARGUMENTS.items() if library else ():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    return library


def takes(x: Tensor) -> bool:
    """Whether C does: on a CPU, up to fp32, where there is a compiler whose code was found to work."""
    plain = x.dtype in (torch.float32, torch.bfloat16, torch.float16) and x.device.type == "cpu" and x.numel() > 0
    return plain and works()


@torch.compiler.assume_constant_result
def works() -> bool:
    """Whether C does on a small input what torch does; asked once per process."""
    return _works()


@cache
def _works() -> bool:
    if _library() is None:
        return False
    return trusted("the SSD's C functions", lambda: selfcheck.compare(run, "cpu", torch.float32, 20, 12), TOLERANCE)


def run(inputs: tuple, documents: Tensor, options: tuple, grads: tuple) -> tuple[Tensor, ...]:
    """Outputs and gradients, for the self-check."""
    y, final, states = forward(*selfcheck.flat(inputs, None, documents, options))
    return y, final, *backward(*selfcheck.flat(grads, inputs, documents, states, options))


def chunks(seqlen: int) -> int:
    """Whose states are kept."""
    return -(-seqlen // LENGTH)


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
    y, final = _empty(*x.shape), _empty(batch, nheads, headdim, dstate)
    states = _empty(batch, chunks(seqlen), nheads, dstate, headdim)
    initial = None if initial_state is None else _whole(initial_state)
    _call("ssd_forward", scan, *map(_address, (initial, states, final, y)))
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
    dy = torch.zeros(x.shape, dtype=torch.float32) if grad_y is None else _whole(grad_y)
    d_final = None if grad_final_state is None else _whole(grad_final_state)
    dx, d_step, dB, dC = (_empty(*tensor.shape) for tensor in (x, step, B, C))
    batch, count, nheads, dstate, headdim = states.shape
    d_initial, d_states = _empty(batch, nheads, headdim, dstate), torch.empty_like(states)
    dA, dD = (_empty(batch, count, nheads) for _ in range(2))
    gradients = _Gradients(*map(_address, (dy, d_final, dx, d_step, dB, dC, d_initial, dA, dD)))
    _call("ssd_backward", scan, ctypes.addressof(gradients), *map(_address, (states, d_states)))
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
    tensors = [None if tensor is None else _whole(tensor) for tensor in (x, step, A, B, C, D)]
    tensors.append(None if seq_idx is None else _whole(seq_idx, torch.int32))
    return _Scan(*x.shape, *B.shape[2:], *map(_address, tensors)), tensors


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32)


def _whole(tensor: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return tensor.detach().to(dtype).contiguous()


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _call(function: str, scan: _Scan, *arguments: int | None) -> None:
    if getattr(_library(), function)(ctypes.addressof(scan), *arguments, torch.get_num_threads()):
        raise MemoryError("no memory for the scan")
