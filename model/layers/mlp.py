"""The position-wise MLP."""

import torch.nn.functional as F
from torch import Tensor, nn

from model.config import HybridConfig


class MLP(nn.Module):
    """d_model -> d_ff -> d_model with exact GELU, squared ReLU (arXiv 2109.08668) or gated SiLU (2002.05202)."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        d_model, d_ff, bias = config.d_model, config.d_ff, config.mlp_bias
        self.activation = config.mlp_activation
        self.up_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.gate_proj = nn.Linear(d_model, d_ff, bias=bias) if self.activation == "silu-gated" else None
        self.down_proj = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, hidden: Tensor, seq_idx: Tensor | None = None, state: None = None) -> tuple[Tensor, None]:
        """(batch, seqlen, d_model) -> the same; an MLP has no state and sees no other position."""
        up = self.up_proj(hidden)
        if self.gate_proj is not None:
            inner = F.silu(self.gate_proj(hidden)) * up
        elif self.activation == "relu2":
            inner = F.relu(up).square()
        else:
            inner = F.gelu(up)
        return self.down_proj(inner), None
