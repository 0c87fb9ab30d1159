"""The residual stream after one more addition, by torch, and its RMSNorm: the gated norm's, in torch or in C."""

from types import ModuleType

import torch
from torch import Tensor

from model.ops._common import full_precision
from model.ops.gated_rmsnorm import torch as rmsnorm


def add(residual: Tensor, mixed: Tensor, multiplier: float) -> Tensor:
    """residual + multiplier mixed, in the residual's dtype."""
    return torch.add(residual, mixed, alpha=multiplier).to(residual.dtype).contiguous()


def shared(residual: torch.dtype, mixed: torch.dtype, multiplier: float) -> bool:
    """Whether the two summands have one gradient: then `backward` leaves that of `mixed` empty."""
    return multiplier == 1.0 and residual == mixed


def forward(
    residual: Tensor,
    mixed: Tensor,
    weight: Tensor,
    eps: float,
    multiplier: float,
    out_dtype: torch.dtype,
    *,
    norm: ModuleType = rmsnorm,
) -> tuple[Tensor, Tensor]:
    """Return the sum in the residual's dtype, and its norm, by the module `norm`, in `out_dtype`."""
    with full_precision(residual):
        total = add(residual, mixed, multiplier)
        return total, norm.forward(total, weight, None, eps, total.shape[-1], False, out_dtype)


def backward(
    grad_total: Tensor | None,
    grad_y: Tensor,
    total: Tensor,
    weight: Tensor,
    eps: float,
    multiplier: float,
    mixed_dtype: torch.dtype,
    *,
    norm: ModuleType = rmsnorm,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the residual, of what is added (empty where `shared`) and of the weight."""
    with full_precision(total):
        d_total, d_weight, _ = norm.backward(grad_y, total, weight, None, eps, total.shape[-1], False)
        if grad_total is not None:
            d_total.add_(grad_total)
        if shared(total.dtype, mixed_dtype, multiplier):
            return d_total, total.new_empty(0, dtype=mixed_dtype), d_weight
        d_mixed = d_total if multiplier == 1.0 else d_total * multiplier
        return d_total, d_mixed.to(mixed_dtype), d_weight
