"""The sum and its RMSNorm by their definition, fp64, plain autograd."""

import torch
from torch import Tensor


def add_rmsnorm(
    residual: Tensor, mixed: Tensor, weight: Tensor, eps: float, multiplier: float
) -> tuple[Tensor, Tensor]:
    """Return both (..., d) in fp64."""
    total = residual.double() + multiplier * mixed.double()
    return total, total * torch.rsqrt(total.square().mean(-1, keepdim=True) + eps) * weight.double()
