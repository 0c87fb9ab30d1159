"""Causal depthwise convolution with its activation."""

from typing import Any, Literal

from torch import Tensor, cat
from torch.library import custom_op

from model.ops._common import Backend, check_shape, chosen
from model.ops.causal_conv1d import reference
from model.ops.causal_conv1d.step import causal_conv1d_state, causal_conv1d_step
from model.ops.causal_conv1d.torch import backward, forward

__all__ = ["causal_conv1d", "causal_conv1d_state", "causal_conv1d_step"]


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
            another document.
        backend: "torch", "reference" or "auto".

    Returns:
        (batch, seqlen, channels) in x's dtype.

    Raises:
        ValueError: shapes that do not fit together, an unknown activation or backend.
    """
    if x.dim() != 3 or weight.dim() != 2:
        raise ValueError(
            f"x {tuple(x.shape)} must be (batch, seqlen, channels), weight {tuple(weight.shape)} (channels, width)"
        )
    batch, seqlen, channels = x.shape
    width = weight.shape[1]
    check_shape("weight", weight, (channels, width))
    if bias is not None:
        check_shape("bias", bias, (channels,))
    if seq_idx is not None:
        check_shape("seq_idx", seq_idx, (batch, seqlen))
    if activation not in ("silu", None):
        raise ValueError(f"activation is {activation!r}: choose 'silu' or None")
    path = chosen(backend)
    if initial_state is not None:
        check_shape("initial_state", initial_state, (batch, width - 1, channels))
        x = cat([initial_state.to(x.dtype), x], dim=1)
        if seq_idx is not None:
            seq_idx = cat([seq_idx[:, :1].expand(-1, width - 1), seq_idx], dim=1)
    if path == "reference":
        y = reference.causal_conv1d(x, weight, bias, activation, seq_idx).to(x.dtype)
    else:
        y = _causal_conv1d(x, weight, bias, seq_idx, activation)
    return y[:, -seqlen:]


@custom_op("mamba2::causal_conv1d", mutates_args=())
def _causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None, activation: str | None
) -> Tensor:
    return forward(x, weight, bias, seq_idx, activation)


@_causal_conv1d.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None, activation: str | None) -> Tensor:
    return x.new_empty(x.shape)


@custom_op("mamba2::causal_conv1d_backward", mutates_args=())
def _causal_conv1d_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return backward(grad_y.contiguous(), x, weight, bias, seq_idx, activation)


@_causal_conv1d_backward.register_fake
def _(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape[:1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.activation = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    dx, d_weight, d_bias = _causal_conv1d_backward(grad_y, *ctx.saved_tensors, ctx.activation)
    return dx, d_weight, None if ctx.saved_tensors[2] is None else d_bias, None, None


_causal_conv1d.register_autograd(_gradients, setup_context=_save)
