"""RMSNorm per group of channels, with an optional SiLU gate before or after it."""

from typing import Any

from torch import Tensor, is_grad_enabled
from torch.library import custom_op

from model.ops._common import Backend, check_shape, chosen
from model.ops.gated_rmsnorm import reference
from model.ops.gated_rmsnorm.torch import backward, forward

__all__ = ["gated_rmsnorm"]


def gated_rmsnorm(
    x: Tensor,
    weight: Tensor,
    *,
    gate: Tensor | None = None,
    eps: float = 1e-5,
    group_size: int | None = None,
    norm_before_gate: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467), gated as in Mamba2.

    RMSNorm(x silu(gate)) weight, or RMSNorm(x) weight silu(gate) with `norm_before_gate`; each consecutive
    `group_size` channels are normalised on their own.

    Args:
        x: (..., d).
        weight: (d,).
        gate: (..., d), no gate if None.
        eps: added to the mean square.
        group_size: channels per group, all d if None.
        norm_before_gate: order of the two.
        backend: "torch", "reference" or "auto".

    Returns:
        (..., d) in x's dtype; computed in fp32 (fp64 for fp64 x).

    Raises:
        ValueError: shapes that do not fit together, or an unknown backend.
    """
    d = x.shape[-1]
    group_size = d if group_size is None else group_size
    check_shape("weight", weight, (d,))
    if gate is not None:
        check_shape("gate", gate, tuple(x.shape))
    if group_size < 1 or d % group_size:
        raise ValueError(f"{d} channels do not divide into groups of {group_size}: choose a divisor")
    if chosen(backend) == "reference":
        return reference.gated_rmsnorm(x, weight, gate, eps, group_size, norm_before_gate).to(x.dtype)
    if not is_grad_enabled():
        return forward(x, weight, gate, eps, group_size, norm_before_gate)  # a decode step feels a custom op call
    return _gated_rmsnorm(x, weight, gate, eps, group_size, norm_before_gate)


@custom_op("mamba2::gated_rmsnorm", mutates_args=())
def _gated_rmsnorm(
    x: Tensor, weight: Tensor, gate: Tensor | None, eps: float, group_size: int, norm_before_gate: bool
) -> Tensor:
    return forward(x, weight, gate, eps, group_size, norm_before_gate)


@_gated_rmsnorm.register_fake
def _(x: Tensor, weight: Tensor, gate: Tensor | None, eps: float, group_size: int, norm_before_gate: bool) -> Tensor:
    return x.new_empty(x.shape)


@custom_op("mamba2::gated_rmsnorm_backward", mutates_args=())
def _gated_rmsnorm_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return backward(grad_y.contiguous(), x, weight, gate, eps, group_size, norm_before_gate)


@_gated_rmsnorm_backward.register_fake
def _(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    d_gate = x.new_empty(0) if gate is None else gate.new_empty(gate.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), d_gate


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, gate, *ctx.options = inputs
    ctx.save_for_backward(x, weight, gate)


def _gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    dx, d_weight, d_gate = _gated_rmsnorm_backward(grad_y, *ctx.saved_tensors, *ctx.options)
    return dx, d_weight, None if ctx.saved_tensors[2] is None else d_gate, None, None, None


_gated_rmsnorm.register_autograd(_gradients, setup_context=_save)
