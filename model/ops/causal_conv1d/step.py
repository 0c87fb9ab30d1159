"""The convolution's decode state and its one-position step."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops._common import check_shape, check_tensors


def causal_conv1d_state(x: Tensor, state: Tensor) -> Tensor:
    """The last width - 1 inputs, (batch, width - 1, channels), after x (batch, seqlen, channels) and a state."""
    kept = state.shape[1]
    last = torch.cat([state.to(x.dtype), x[:, max(0, x.shape[1] - kept) :]], dim=1)
    return last[:, last.shape[1] - kept :]


def causal_conv1d_step(
    x: Tensor,
    state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = "silu",
) -> tuple[Tensor, Tensor]:
    """Advance the convolution by one position.

    Args:
        x: (batch, channels) the new input.
        state: (batch, width - 1, channels) the inputs before it; not modified.
        weight: (channels, width) taps, the current position's last.
        bias: (channels,).
        activation: "silu" or None.

    Returns:
        y (batch, channels) and the new state.

    Raises:
        ValueError: shapes that do not fit together, tensors on several devices, or an unknown activation.
    """
    if x.dim() != 2 or weight.dim() != 2:
        raise ValueError(
            f"x {tuple(x.shape)} must be (batch, channels), weight {tuple(weight.shape)} (channels, width)"
        )
    (batch, channels), width = x.shape, weight.shape[1]
    check_shape("weight", weight, (channels, width))
    check_shape("state", state, (batch, width - 1, channels))
    if bias is not None:
        check_shape("bias", bias, (channels,))
    if activation not in ("silu", None):
        raise ValueError(f"activation is {activation!r}: choose 'silu' or None")
    check_tensors(x=x, state=state, weight=weight, bias=bias)
    window = torch.cat([state.to(x.dtype), x.unsqueeze(1)], dim=1)
    y = (window * weight.t()).sum(1)
    y = y if bias is None else y.add_(bias)
    y = F.silu(y, inplace=True) if activation == "silu" else y
    return y.to(x.dtype), window[:, 1:]
