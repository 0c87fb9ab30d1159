"""Root-mean-square norms with a learned scale."""

import torch
from torch import Tensor, nn

from model.ops._common import autocasts
from model.ops.add_rmsnorm import add_rmsnorm
from model.ops.gated_rmsnorm import gated_rmsnorm


class RMSNorm(nn.Module):
    """RMSNorm over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467).

    Reads the residual stream in any precision, adds what the layer before made, in the same pass, and returns the norm
    as the next matrix product wants it: in the autocast dtype where autocast is on, else the dtype of its weight.
    """

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_model))
        self.eps = eps
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1."""
        nn.init.ones_(self.weight)

    def forward(self, residual: Tensor, mixed: Tensor | None = None, multiplier: float = 1.0) -> tuple[Tensor, Tensor]:
        """Add `multiplier` times `mixed`, if there is any, to the residual stream.

        Returns:
            The residual stream (..., d_model) after that, and its norm.
        """
        device = residual.device.type
        dtype = torch.get_autocast_dtype(device) if autocasts(device) else self.weight.dtype
        if mixed is None:
            return residual, gated_rmsnorm(residual, self.weight, eps=self.eps, out_dtype=dtype)
        return add_rmsnorm(residual, mixed, self.weight, eps=self.eps, multiplier=multiplier, out_dtype=dtype)


class GatedRMSNorm(nn.Module):
    """The Mamba2 mixer's norm: per group of channels, gated before or after."""

    def __init__(self, d_inner: int, n_groups: int, eps: float, norm_before_gate: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_inner))
        self.group_size = d_inner // n_groups
        self.eps = eps
        self.norm_before_gate = norm_before_gate
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """(..., d_inner) and its gate -> (..., d_inner)."""
        return gated_rmsnorm(
            x,
            self.weight,
            gate=gate,
            eps=self.eps,
            group_size=self.group_size,
            norm_before_gate=self.norm_before_gate,
        )
