"""The Mamba2 mixer (Dao and Gu 2024, arXiv 2405.21060, figure 6)."""

import math

import torch
from torch import Tensor, nn

from model.config import HybridConfig
from model.layers.norm import GatedRMSNorm
from model.layers.scan import SelectiveScan
from model.ops.causal_conv1d import causal_conv1d, causal_conv1d_state
from model.state import MambaState


class CausalConv1d(nn.Module):
    """Depthwise causal convolution with SiLU; weight (channels, d_conv)."""

    def __init__(self, channels: int, d_conv: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, d_conv))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Taps uniform in +-1 / sqrt(d_conv), bias zero."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, seq_idx: Tensor | None, state: Tensor | None) -> Tensor:
        """Convolve (batch, seqlen, channels), after the inputs of `state` (batch, d_conv - 1, channels)."""
        return causal_conv1d(x, self.weight, self.bias, initial_state=state, seq_idx=seq_idx)


class Mamba2(nn.Module):
    """Project to z, x, B, C and dt, convolve x, B and C, scan, norm with the gate z, project back.

    The five projections and three convolutions are parameters of their own, so that tensor parallelism,
    adapters and checkpoints address them by name.
    """

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        d_model, d_inner, bias = config.d_model, config.d_inner, config.mamba_bias
        d_bc = config.n_groups * config.d_state
        self.headdim, self.d_state = config.headdim, config.d_state
        self.z_proj = nn.Linear(d_model, d_inner, bias=bias)
        self.x_proj = nn.Linear(d_model, d_inner, bias=bias)
        self.B_proj = nn.Linear(d_model, d_bc, bias=bias)
        self.C_proj = nn.Linear(d_model, d_bc, bias=bias)
        self.dt_proj = nn.Linear(d_model, config.nheads, bias=bias)
        self.x_conv = CausalConv1d(d_inner, config.d_conv, config.conv_bias)
        self.B_conv = CausalConv1d(d_bc, config.d_conv, config.conv_bias)
        self.C_conv = CausalConv1d(d_bc, config.d_conv, config.conv_bias)
        self.scan = SelectiveScan(config)
        self.norm = GatedRMSNorm(d_inner, config.n_groups, config.norm_eps, config.norm_before_gate)
        self.out_proj = nn.Linear(d_inner, d_model, bias=bias)

    def projections(self) -> tuple[nn.Linear, ...]:
        """z_proj, x_proj, B_proj, C_proj, dt_proj and out_proj."""
        return self.z_proj, self.x_proj, self.B_proj, self.C_proj, self.dt_proj, self.out_proj

    def forward(
        self, hidden: Tensor, seq_idx: Tensor | None = None, state: MambaState | None = None
    ) -> tuple[Tensor, MambaState | None]:
        """Mix (batch, seqlen, d_model) along the sequence; with a state, continue from it."""
        x, B, C, dt = self.x_proj(hidden), self.B_proj(hidden), self.C_proj(hidden), self.dt_proj(hidden)
        x_before, B_before, C_before, ssm_before, after = None, None, None, None, None
        if state is not None:
            x_before, B_before, C_before = state.conv.split([x.shape[-1], B.shape[-1], C.shape[-1]], dim=-1)
            ssm_before = state.ssm
            kept = state.conv.shape[1]
            last = torch.cat([projected[:, -kept:] for projected in (x, B, C)], dim=-1)
            conv_after = causal_conv1d_state(last, state.conv)
        x = self.x_conv(x, seq_idx, x_before).unflatten(-1, (-1, self.headdim))
        B = self.B_conv(B, seq_idx, B_before).unflatten(-1, (-1, self.d_state))
        C = self.C_conv(C, seq_idx, C_before).unflatten(-1, (-1, self.d_state))
        y, ssm_after = self.scan(x, dt, B, C, seq_idx, ssm_before)
        if state is not None:
            after = MambaState(conv_after, ssm_after)
        return self.out_proj(self.norm(y.flatten(-2), self.z_proj(hidden))), after
