"""Causal self-attention with grouped key and value heads."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import HybridConfig
from model.layers.rotary import Rotary
from model.ops.rotary import rotary
from model.state import AttentionState

_MASK_ELEMENTS = 2**24
"""Of one mask, where a text is read in chunks."""


def _positions(seqlen: int, past: int, seq_idx: Tensor | None, device: torch.device) -> Tensor:
    """Positions after `past` earlier ones, (seqlen,), or within each document, (batch, seqlen)."""
    positions = torch.arange(past, past + seqlen, device=device)
    if seq_idx is None:
        return positions
    starts = F.pad(seq_idx[:, 1:] != seq_idx[:, :-1], (1, 0))
    return positions - (positions * starts).cummax(1).values


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245) through PyTorch's fused kernel."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        d_model, bias = config.d_model, config.attention_bias
        self.head_dim = config.attention_head_dim
        self.rotary = Rotary.of(config)
        self.scale = config.attention_multiplier
        self.q_proj = nn.Linear(d_model, config.n_heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(d_model, config.n_kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(d_model, config.n_kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(config.n_heads * self.head_dim, d_model, bias=bias)

    def forward(
        self, hidden: Tensor, seq_idx: Tensor | None = None, state: AttentionState | None = None
    ) -> tuple[Tensor, AttentionState | None]:
        """Attend within (batch, seqlen, d_model); with a state, also to the positions it holds."""
        attended, state = self.mix(self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden), seq_idx, state)
        return self.o_proj(attended), state

    def projections(self) -> tuple[nn.Linear, ...]:
        """q_proj, k_proj, v_proj and o_proj."""
        return self.q_proj, self.k_proj, self.v_proj, self.o_proj

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, seq_idx: Tensor | None, state: AttentionState | None
    ) -> tuple[Tensor, AttentionState | None]:
        """Projected (batch, seqlen, heads * head_dim) -> the input of o_proj, and the state after."""
        query, key, value = (
            projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for projected in (query, key, value)
        )
        past = 0 if state is None else state.length
        starts = None if state is None else state.starts
        if self.rotary is not None:
            positions = _positions(query.shape[2], past, seq_idx, query.device)
            if starts is not None:
                positions = positions - starts.unsqueeze(1)
            cos, sin = self.rotary.angles(positions)
            query, key = (rotary(x, cos, sin) for x in (query, key))
        if state is not None:
            state = state.append(key, value)
            key, value = state.keys, state.values
        attended = self._attend(query, key, value, _visible(query.shape[2], past, seq_idx, starts, query.device), past)
        return attended.transpose(1, 2).flatten(-2), state

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, past: int) -> Tensor:
        """(batch, heads, seqlen, head_dim) queries over (batch, kv_heads, past + seqlen, head_dim) keys."""
        if mask is None and past > 0 and query.shape[2] > 1:
            return _attend_after(query, key, value, past, self.scale)
        causal = mask is None and past == 0
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, scale=self.scale, enable_gqa=True
        )


def _visible(
    seqlen: int, past: int, seq_idx: Tensor | None, starts: Tensor | None, device: torch.device
) -> Tensor | None:
    """Mask of the keys that each query sees; None where causality says it."""
    if seq_idx is not None:
        same_document = seq_idx.unsqueeze(2) == seq_idx.unsqueeze(1)
        return same_document.tril().unsqueeze(1)
    if starts is None:
        return None
    assert seqlen == 1, "rows of different lengths go on token by token"
    return torch.arange(past + 1, device=device) >= starts.view(-1, 1, 1, 1)


def _attend_after(query: Tensor, key: Tensor, value: Tensor, past: int, scale: float | None) -> Tensor:
    """Causal attention of queries that come after `past` keys, without a matrix of all scores."""
    attend = None if torch.is_grad_enabled() else _telling_sums(query)
    if attend is None:
        return _masked(query, key, value, past, scale)
    return _merged(attend, query, key, value, past, scale)


def _telling_sums(query: Tensor) -> Callable[..., tuple[Tensor, ...]] | None:
    """The fused kernel that takes such queries and also gives the log-sum-exp of their scores, in fp32."""
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if not query.is_cuda or torch.cuda.get_device_capability(query.device) < (8, 0):
        return None
    half, head_dim = query.dtype in (torch.bfloat16, torch.float16), query.shape[-1]
    if half and head_dim % 8 == 0 and head_dim <= 256 and torch.backends.cuda.flash_sdp_enabled():
        return torch.ops.aten._scaled_dot_product_flash_attention
    return None


def _merged(
    attend: Callable[..., tuple[Tensor, ...]], query: Tensor, key: Tensor, value: Tensor, past: int, scale: float | None
) -> Tensor:
    """Over the keys before, all of which every query sees, and causally over the queries' own, put together.

    Softmax over two sets is the sum of both, weighted by exp(log-sum-exp of a set - that of all). Of that sum the
    kernels have no gradient; without a mask they are two to three times as fast.
    """
    shared = query.shape[1] // key.shape[1]
    folded = query.unflatten(1, (-1, shared)).flatten(2, 3)
    before, sum_before = attend(folded, key[:, :, :past], value[:, :, :past], scale=scale)[:2]
    before, sum_before = before.reshape(query.shape), sum_before.reshape(query.shape[:3])
    own = (part[:, :, past:].repeat_interleave(shared, dim=1) for part in (key, value))
    after, sum_after = attend(query, *own, is_causal=True, scale=scale)[:2]
    return torch.lerp(before, after, (sum_after - sum_before).sigmoid().unsqueeze(-1).to(after.dtype))


def _masked(query: Tensor, key: Tensor, value: Tensor, past: int, scale: float | None) -> Tensor:
    """In blocks whose masks stay small.

    The query heads that share a key head are folded into one sequence: without grouped heads the fused kernels
    need no copy of the keys, and no matrix of all scores.
    """
    batch, heads, seqlen, head_dim = query.shape
    shared = heads // key.shape[1]
    columns = torch.arange(past + seqlen, device=query.device)
    size = max(1, _MASK_ELEMENTS // (shared * len(columns)))
    blocks: list[Tensor] = []
    for block in query.split(size, dim=2):
        rows = block.shape[2]
        first = past + size * len(blocks)
        end = first + rows
        mask = columns[:end] <= columns[first:end, None]
        attended = F.scaled_dot_product_attention(
            block.reshape(batch, -1, shared * rows, head_dim),
            key[:, :, :end],
            value[:, :, :end],
            attn_mask=mask.repeat(shared, 1),
            scale=scale,
        )
        blocks.append(attended.reshape(batch, heads, rows, head_dim))
    return torch.cat(blocks, dim=2)
