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
        gate = None if self.gate_proj is None else self.gate_proj(hidden)
        return self.down_proj(self.activate(self.up_proj(hidden), gate)), None

    def projections(self) -> tuple[nn.Linear, ...]:
        """gate_proj where there is one, up_proj and down_proj."""
        into = (self.up_proj,) if self.gate_proj is None else (self.gate_proj, self.up_proj)
        return (*into, self.down_proj)

    def activate(self, up: Tensor, gate: Tensor | None) -> Tensor:
        """The input of down_proj."""
        if gate is not None:
            return F.silu(gate) * up
        return F.relu(up).square() if self.activation == "relu2" else F.gelu(up)
