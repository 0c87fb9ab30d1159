"""The Mamba2 mixer (Dao and Gu 2024, arXiv 2405.21060, figure 6)."""

import math

import torch
from torch import Tensor, nn

from model.config import HybridConfig
from model.layers.norm import GatedRMSNorm
from model.layers.scan import SelectiveScan
from model.ops.causal_conv1d import causal_conv1d, causal_conv1d_state, causal_conv1d_step
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

    def forward(self, x: Tensor, seq_idx: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Convolve (batch, seqlen, channels); with a state, continue from it and return the one after."""
        if state is None:
            return causal_conv1d(x, self.weight, self.bias, seq_idx=seq_idx), None
        if x.shape[1] == 1:
            y, state = causal_conv1d_step(x.squeeze(1), state, self.weight, self.bias)
            return y.unsqueeze(1), state
        y = causal_conv1d(x, self.weight, self.bias, initial_state=state, seq_idx=seq_idx)
        return y, causal_conv1d_state(x, self.weight.shape[1], state)


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

    def forward(
        self, hidden: Tensor, seq_idx: Tensor | None = None, state: MambaState | None = None
    ) -> tuple[Tensor, MambaState | None]:
        """Mix (batch, seqlen, d_model) along the sequence; with a state, continue from it."""
        x_before, B_before, C_before, ssm_before = state or (None, None, None, None)
        x, x_after = self.x_conv(self.x_proj(hidden), seq_idx, x_before)
        B, B_after = self.B_conv(self.B_proj(hidden), seq_idx, B_before)
        C, C_after = self.C_conv(self.C_proj(hidden), seq_idx, C_before)
        x = x.unflatten(-1, (-1, self.headdim))
        B, C = B.unflatten(-1, (-1, self.d_state)), C.unflatten(-1, (-1, self.d_state))
        dt = self.dt_proj(hidden)
        if ssm_before is not None and hidden.shape[1] == 1:
            y, ssm_after = self.scan.step(x.squeeze(1), dt.squeeze(1), B.squeeze(1), C.squeeze(1), ssm_before)
            y = y.unsqueeze(1)
        else:
            y, ssm_after = self.scan(x, dt, B, C, seq_idx, ssm_before)
        out = self.out_proj(self.norm(y.flatten(-2), self.z_proj(hidden)))
        if x_after is None or B_after is None or C_after is None:
            return out, None
        return out, MambaState(x_after, B_after, C_after, ssm_after)
