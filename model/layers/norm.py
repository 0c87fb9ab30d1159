"""Root-mean-square norms with a learned scale."""

import torch
from torch import Tensor, nn

from model.ops.gated_rmsnorm import gated_rmsnorm


class RMSNorm(nn.Module):
    """RMSNorm over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467).

    Reads the residual stream in any precision and returns what the next matrix product wants: the autocast
    dtype where autocast is on, else the dtype of its weight.
    """

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_model))
        self.eps = eps
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) -> (..., d_model)."""
        device = x.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else self.weight.dtype
        return gated_rmsnorm(x, self.weight, eps=self.eps, out_dtype=dtype)


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
