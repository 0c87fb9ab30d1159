"""The convolution's decode state and its one-position step."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops import _native
from model.ops._common import check_shape
from model.ops.causal_conv1d import native


def causal_conv1d_state(x: Tensor, state: Tensor) -> Tensor:
    """The last width - 1 inputs, (batch, width - 1, channels), after x (batch, seqlen, channels) and a state."""
    return torch.cat([state.to(x.dtype), x], dim=1)[:, -state.shape[1] :]


def causal_conv1d_step(
    x: Tensor,
    state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = "silu",
    backend: _native.StepBackend = "auto",
) -> tuple[Tensor, Tensor]:
    """Advance the convolution by one position.

    Args:
        x: (batch, channels) the new input.
        state: (batch, width - 1, channels) the inputs before it; not modified.
        weight: (channels, width) taps, the current position's last.
        bias: (channels,).
        activation: "silu" or None.
        backend: "torch"; "native", in C, for fp32 on a CPU; "auto" takes that where it can.

    Returns:
        y (batch, channels) and the new state.

    Raises:
        ValueError: shapes that do not fit together, an unknown backend, or one that cannot be had.
    """
    (batch, channels), width = x.shape, weight.shape[1]
    check_shape("weight", weight, (channels, width))
    check_shape("state", state, (batch, width - 1, channels))
    if bias is not None:
        check_shape("bias", bias, (channels,))
    step = native.step if _native.chosen(backend, (x, state, weight, bias), _native_works) else _torch_step
    return step(x, state, weight, bias, activation == "silu")


def _torch_step(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None, activate: bool) -> tuple[Tensor, Tensor]:
    window = torch.cat([state.to(x.dtype), x.unsqueeze(1)], dim=1)
    y = (window * weight.t()).sum(1)
    y = y if bias is None else y.add_(bias)
    y = F.silu(y, inplace=True) if activate else y
    return y.to(x.dtype), window[:, 1:]


@cache
def _native_works() -> bool:
    """Whether the C kernel is there and does on a small input what torch does; asked once per process."""
    if native.kernel() is None:
        return False
    x, state, weight, bias = _native.small_inputs((2, 5), (2, 3, 5), (5, 4), (5,))
    arguments = (x, state, weight, bias, True)
    return _native.agree("causal_conv1d_step", native.step(*arguments), _torch_step(*arguments))
