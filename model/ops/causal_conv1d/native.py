"""The causal convolution on a CPU in C (c/): one pass over memory in each direction."""

import ctypes
from functools import cache, partial

import torch
from torch import Tensor

from model.ops._native import INT, POINTER, SIZE, Works, address, empty, functions, in_memory, whole
from model.ops._selfcheck import trusted
from model.ops.causal_conv1d import selfcheck

POSITIONS, MOST_TAPS = 64, 8
"""Of a task and of a channel, in C too."""

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.01}
"""Largest difference from torch, relative to the largest value, that rounding explains on a small input."""


class _Conv(ctypes.Structure):
    _fields_ = (
        *((name, SIZE) for name in ("batch", "seqlen", "channels", "width")),
        *((name, POINTER) for name in ("x", "taps", "bias", "before", "seq_idx")),
        *((name, INT) for name in ("silu", "half")),
    )


@cache
def _library() -> ctypes.CDLL | None:
    arguments = {"conv_forward": [POINTER, POINTER, INT], "conv_backward": [*[POINTER] * 5, INT]}
    return functions("causal-conv1d", __file__, arguments)


@Works
def works() -> bool:
    """Whether C does on a small input what torch does."""
    if _library() is None:
        return False
    return all(
        trusted(
            "the convolution's C functions", partial(selfcheck.compare, forward, backward, "cpu", dtype, 4), tolerance
        )
        for dtype, tolerance in TOLERANCE.items()
    )


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
) -> Tensor:
    """Return y (b, l, d) in x's dtype."""
    conv, _held = _conv(x, weight, bias, initial_state, seq_idx, activation)
    y = empty(*x.shape, dtype=in_memory(x.dtype))
    _call("conv_forward", conv, y)
    return y.to(x.dtype)


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and initial_state (empty without one)."""
    conv, _held = _conv(x, weight, bias, initial_state, seq_idx, activation)
    dtype = in_memory(x.dtype)
    dy, dx = whole(grad_y, dtype), empty(*x.shape, dtype=dtype)
    d_state = None if initial_state is None else empty(*initial_state.shape)
    parts = empty(conv.batch, -(-conv.seqlen // POSITIONS), conv.width + 1, conv.channels)
    _call("conv_backward", conv, dy, dx, d_state, parts)
    sums = parts.sum((0, 1))
    return (
        dx.to(x.dtype),
        sums[:-1].t().clone(memory_format=torch.contiguous_format).to(weight.dtype),
        sums[-1].clone().to(weight.dtype),
        x.new_empty(0) if initial_state is None or d_state is None else d_state.to(initial_state.dtype),
    )


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
) -> tuple[_Conv, list[Tensor | None]]:
    """The structure, and what it points to."""
    dtype = in_memory(x.dtype)
    others = [None if tensor is None else whole(tensor) for tensor in (bias, initial_state)]
    documents = None if seq_idx is None else whole(seq_idx, torch.int32)
    tensors = [whole(x, dtype), whole(weight.t()), *others, documents]
    flags = (activation == "silu", dtype == torch.bfloat16)
    return _Conv(*x.shape, weight.shape[1], *map(address, tensors), *flags), tensors


def _call(function: str, conv: _Conv, *tensors: Tensor | None) -> None:
    getattr(_library(), function)(ctypes.addressof(conv), *map(address, tensors), torch.get_num_threads())
