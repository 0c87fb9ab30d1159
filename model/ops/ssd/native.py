"""The SSD on a CPU in C (c/): chunks of 64 positions, whose matrices stay in a core's cache.

Where the processor multiplies bf16, what is bf16 is read, multiplied and written as such; sums are fp32.
"""

import ctypes
from functools import cache, partial

import torch
from torch import Tensor

from model.ops._native import INT, POINTER, SIZE, Works, address, empty, functions, whole
from model.ops._selfcheck import trusted
from model.ops.ssd import selfcheck
from model.ops.ssd.torch import step_sizes, step_sizes_backward

LENGTH = 64
"""Positions of a chunk, in C too."""

WHOLE_TILES = 32
"""Of which the rows and columns of bf16 states are a multiple, in C too."""

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.02}
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
    library = functions("ssd", __file__, arguments)
    if library is not None and library.ssd_multiplies_bf16():
        library.ssd_forward_bf16.argtypes = [*[POINTER] * 5, INT, INT]
        library.ssd_backward_bf16.argtypes = [*[POINTER] * 4, INT, INT]
    return library


@cache
def _multiplies_bf16() -> int:
    """1 in vectors, 2 in tiles (AMX), 0 not at all; asked once, since they round differently."""
    library = _library()
    return 0 if library is None else library.ssd_multiplies_bf16()


@Works
def works() -> bool:
    """Whether C does on a small input what torch does."""
    return _library() is not None and _as_torch(torch.float32)


@Works
def bf16_works() -> bool:
    """Whether C multiplies bf16 on this processor, and does on a small input what torch does."""
    return _multiplies_bf16() > 0 and _as_torch(torch.bfloat16)


def _as_torch(dtype: torch.dtype) -> bool:
    compare = partial(selfcheck.compare, partial(run, dtype), "cpu", dtype, 20, 70)  # two blocks of a state's rows
    return trusted(f"the SSD's C functions for {dtype}", compare, TOLERANCE[dtype])


def run(factors: torch.dtype, inputs: tuple, documents: Tensor, options: tuple, grads: tuple) -> tuple[Tensor, ...]:
    """Outputs and gradients, for the self-check."""
    y, final, states = forward(*selfcheck.flat(inputs, None, documents, options, factors))
    return y, final, *backward(*selfcheck.flat(grads, inputs, documents, states, options))


def takes_bf16(*tensors: Tensor) -> bool:
    """Whether x, B and C are multiplied in bf16."""
    return all(tensor.dtype == torch.bfloat16 for tensor in tensors) and bf16_works()


def kept(x: Tensor, B: Tensor, factors: torch.dtype) -> tuple[int, ...]:
    """Shape of the chunk-start states: (b, c, h, n, p), of bf16 in pairs of rows, (b, c, h, n / 2, 2 p)."""
    batch, seqlen, nheads, headdim = x.shape
    dstate, chunks = B.shape[-1], -(-seqlen // LENGTH)
    if factors == torch.float32:
        return batch, chunks, nheads, dstate, headdim
    wide, deep = (-(-width // WHOLE_TILES) * WHOLE_TILES for width in (headdim, dstate))
    return batch, chunks, nheads, deep // 2, 2 * wide


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
    factors: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y (b, seqlen, h, p), in x's dtype, final state (b, h, p, n) and chunk-start states, as `kept` says.

    Args:
        factors: of the products: fp32, or bf16 where x, B and C are that and `bf16_works`.
    """
    step = step_sizes(dt, dt_bias, dt_softplus, dt_limit, torch.float32)
    scan, _held = _scan(x, step, A, B, C, D, seq_idx, factors)
    batch, _, nheads, headdim = x.shape
    y, final = empty(*x.shape, dtype=factors), empty(batch, nheads, headdim, B.shape[-1])
    states = empty(*kept(x, B, factors), dtype=factors)
    initial = None if initial_state is None else whole(initial_state)
    _call("ssd_forward", factors, scan, *map(address, (initial, states, final, y)))
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
    factors = states.dtype
    step = step_sizes(dt, dt_bias, dt_softplus, dt_limit, torch.float32)
    scan, _held = _scan(x, step, A, B, C, D, seq_idx, factors)
    dy = empty(*x.shape, dtype=factors).zero_() if grad_y is None else whole(grad_y, factors)
    d_final = None if grad_final_state is None else whole(grad_final_state)
    dx, dB, dC = (empty(*tensor.shape, dtype=factors) for tensor in (x, B, C))
    batch, count, nheads = states.shape[:3]
    d_initial, d_states = empty(batch, nheads, x.shape[-1], B.shape[-1]), torch.empty_like(states)
    d_step, (dA, dD) = empty(*step.shape), (empty(batch, count, nheads) for _ in range(2))
    gradients = _Gradients(*map(address, (dy, d_final, dx, d_step, dB, dC, d_initial, dA, dD)))
    _call("ssd_backward", factors, scan, ctypes.addressof(gradients), *map(address, (states, d_states)))
    ddt = step_sizes_backward(d_step, dt, dt_bias, dt_softplus, dt_limit)
    d_bias = ddt.sum((0, 1))
    return (
        *(dx.to(x.dtype), ddt.to(dt.dtype), dA.sum((0, 1)).to(A.dtype), dB.to(B.dtype), dC.to(C.dtype)),
        dD.sum((0, 1)).to(A.dtype if D is None else D.dtype),
        d_bias if dt_bias is None else d_bias.to(dt_bias.dtype),
        d_initial,
    )


def _scan(
    x: Tensor,
    step: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    seq_idx: Tensor | None,
    factors: torch.dtype,
) -> tuple[_Scan, list[Tensor | None]]:
    """The structure, and what it points to."""
    x, B, C = (whole(tensor, factors) for tensor in (x, B, C))
    tensors = [x, whole(step), whole(A), B, C, None if D is None else whole(D)]
    tensors.append(None if seq_idx is None else whole(seq_idx, torch.int32))
    return _Scan(*x.shape, *B.shape[2:], *map(address, tensors)), tensors


def _call(function: str, factors: torch.dtype, scan: _Scan, *arguments: int | None) -> None:
    if factors == torch.bfloat16:
        function, arguments = f"{function}_bf16", (*arguments, int(_multiplies_bf16() == 2))
    if getattr(_library(), function)(ctypes.addressof(scan), *arguments, torch.get_num_threads()):
        raise MemoryError("no memory for the scan")
