"""Causal depthwise convolution with its activation."""

from typing import Any, Literal

from torch import Tensor, bfloat16, cat, float16, float32, int32

from model.ops._common import (
    Backend,
    check_documents,
    check_shape,
    check_tensors,
    chosen,
    number_documents,
    runs_triton,
)
from model.ops._native import runs_native
from model.ops._operator import operator
from model.ops.causal_conv1d import native, reference, selfcheck
from model.ops.causal_conv1d.step import causal_conv1d_state, causal_conv1d_step
from model.ops.causal_conv1d.torch import backward, forward

__all__ = ["causal_conv1d", "causal_conv1d_state", "causal_conv1d_step"]

MOST_TAPS = native.MOST_TAPS
"""Whose inputs a kernel keeps in registers."""

MOST_ROWS = 65535
"""Of a batch that a launch has room for."""


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: Literal["silu"] | None = "silu",
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Convolve every channel with its own taps over the current and the width - 1 preceding positions.

    Args:
        x: (batch, seqlen, channels).
        weight: (channels, width) taps, the current position's last.
        bias: (channels,).
        activation: "silu" or None.
        initial_state: (batch, width - 1, channels) inputs before the first position, zeros if None; they
            belong to a row's first document.
        seq_idx: (batch, seqlen) int32 document index, non-decreasing along a row; no tap reaches into
            another document. Other integers are numbered first: a document begins wherever they change.
        backend: "triton" (on a GPU, in fp32, bf16 or fp16), "native" (C, on a CPU, likewise), "torch", "reference" or
            "auto": the fastest that takes these inputs, or what the environment's MAMBA2_BACKEND says.

    Returns:
        (batch, seqlen, channels) in x's dtype.

    Raises:
        ValueError: shapes that do not fit together, tensors on several devices, x of integers, an unknown activation,
            or a backend that is unknown or does not take these inputs.
    """
    if x.dim() != 3 or weight.dim() != 2:
        raise ValueError(
            f"x {tuple(x.shape)} must be (batch, seqlen, channels), weight {tuple(weight.shape)} (channels, width)"
        )
    batch, seqlen, channels = x.shape
    width = weight.shape[1]
    check_shape("weight", weight, (channels, width))
    if width == 0:
        raise ValueError("weight has no taps: width must be at least 1")
    if bias is not None:
        check_shape("bias", bias, (channels,))
    if seq_idx is not None:
        check_documents(seq_idx, (batch, seqlen))
    if activation not in ("silu", None):
        raise ValueError(f"activation is {activation!r}: choose 'silu' or None")
    if initial_state is not None:
        check_shape("initial_state", initial_state, (batch, width - 1, channels))
    check_tensors(x=x, weight=weight, bias=bias, initial_state=initial_state, seq_idx=seq_idx)
    if seq_idx is not None and seq_idx.dtype != int32:
        seq_idx = number_documents(seq_idx)  # which fit
    path = chosen(
        backend,
        triton=lambda: _triton_takes(x, width, check=backend != "triton"),
        native=lambda: runs_native(x) and 2 <= width <= MOST_TAPS and native.works(),
    )
    if path in ("triton", "native"):
        return _CAUSAL_CONV1D(x, weight, bias, initial_state, seq_idx, activation, path)
    if initial_state is not None and seqlen > 0:
        x = cat([initial_state.to(x.dtype), x], dim=1)
        if seq_idx is not None:
            seq_idx = cat([seq_idx[:, :1].expand(-1, width - 1), seq_idx], dim=1)
    if path == "reference":
        y = reference.causal_conv1d(x, weight, bias, activation, seq_idx).to(x.dtype)
    else:
        y = _CAUSAL_CONV1D(x, weight, bias, None, seq_idx, activation, path)
    return y[:, y.shape[1] - seqlen :]


def _triton_takes(x: Tensor, width: int, check: bool) -> bool:
    """Whether there is a kernel for these inputs; with `check`, one found to work."""
    fits = 2 <= width <= MOST_TAPS and x.numel() > 0 and len(x) <= MOST_ROWS
    if x.dtype not in (float32, bfloat16, float16) or not fits or not runs_triton(x):
        return False
    return not check or (x.is_cuda and selfcheck.passes(str(x.device), x.dtype, width))


def _kernels(path: str) -> Any:
    """The module of a path; only a machine with a GPU needs Triton."""
    if path == "native":
        return native
    from model.ops.causal_conv1d import triton

    return triton


def _causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
    path: str,
) -> Tensor:
    if path != "torch":
        return _kernels(path).forward(x, weight, bias, initial_state, seq_idx, activation)
    assert initial_state is None, "torch gets it in front of x"
    return forward(x, weight, bias, seq_idx, activation)


def _fake_causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
    path: str,
) -> Tensor:
    return x.new_empty(x.shape)


def _causal_conv1d_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
    path: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if path != "torch":
        return _kernels(path).backward(grad_y, x, weight, bias, initial_state, seq_idx, activation)
    return *backward(grad_y.contiguous(), x, weight, bias, seq_idx, activation), x.new_empty(0)


def _fake_causal_conv1d_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
    path: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d_state = x.new_empty(0) if initial_state is None else initial_state.new_empty(initial_state.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape[:1]), d_state


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.activation, ctx.path = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: checkpointing makes them anew each time, or refuses
    bias, initial_state = saved[2:4]
    dx, d_weight, d_bias, d_state = _CAUSAL_CONV1D_BACKWARD(grad_y, *saved, ctx.activation, ctx.path)
    return (
        dx,
        d_weight,
        None if bias is None else d_bias,
        None if initial_state is None else d_state,
        *(None,) * 3,
    )


_CAUSAL_CONV1D = operator(_causal_conv1d, _fake_causal_conv1d, _save, _gradients)
_CAUSAL_CONV1D_BACKWARD = operator(_causal_conv1d_backward, _fake_causal_conv1d_backward)
