"""Causal self-attention with grouped key and value heads."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import HybridConfig
from model.state import AttentionState


def rotate(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotary embedding (Su et al. 2021, arXiv 2104.09864), halves rotated.

    x is (batch, heads, seqlen, head_dim), positions (seqlen,) or (batch, 1, seqlen).
    """
    half = x.shape[-1] // 2
    rates = theta ** -(torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = positions.unsqueeze(-1) * rates
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _positions(seqlen: int, past: int, seq_idx: Tensor | None, device: torch.device) -> Tensor:
    """Positions after `past` earlier ones, (seqlen,), or within each document, (batch, 1, seqlen)."""
    positions = torch.arange(past, past + seqlen, device=device)
    if seq_idx is None:
        return positions
    starts = F.pad(seq_idx[:, 1:] != seq_idx[:, :-1], (1, 0))
    return (positions - (positions * starts).cummax(1).values).unsqueeze(1)


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245) through PyTorch's fused kernel."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        d_model, bias = config.d_model, config.attention_bias
        self.head_dim = config.attention_head_dim
        self.rope_theta = config.rope_theta
        self.q_proj = nn.Linear(d_model, config.n_heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(d_model, config.n_kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(d_model, config.n_kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(config.n_heads * self.head_dim, d_model, bias=bias)

    def forward(
        self, hidden: Tensor, seq_idx: Tensor | None = None, state: AttentionState | None = None
    ) -> tuple[Tensor, AttentionState | None]:
        """Attend within (batch, seqlen, d_model); with a state, also to the positions it holds."""
        query, key, value = (
            projection(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        past = 0 if state is None else state.length
        if self.rope_theta is not None:
            positions = _positions(query.shape[2], past, seq_idx, query.device)
            query, key = (rotate(x, positions, self.rope_theta) for x in (query, key))
        if state is not None:
            state = state.append(key, value)
            key, value = state.keys, state.values
        mask = _visible(query.shape[2], past, seq_idx, query.device)
        causal = mask is None and past == 0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=True)
        return self.o_proj(attended.transpose(1, 2).flatten(-2)), state


def _visible(seqlen: int, past: int, seq_idx: Tensor | None, device: torch.device) -> Tensor | None:
    """Mask of the keys that each query sees; None where plain causality, or no mask at all, says it."""
    if seq_idx is not None:
        same_document = seq_idx.unsqueeze(2) == seq_idx.unsqueeze(1)
        return same_document.tril().unsqueeze(1)
    if past == 0 or seqlen == 1:
        return None
    return torch.ones(seqlen, past + seqlen, dtype=torch.bool, device=device).tril(past)
