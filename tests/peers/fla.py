"""flash-linear-attention's chunk_simple_gla (fla-org/flash-linear-attention) on our scan.

There S_t = exp(g_t) S_{t-1} + k_t v_t^T and o_t = scale S_t^T q_t: the scan with x = v, B = k, C = scale q and its
state transposed. But the step size of the scan makes both the decay, exp(dt A), and the weight of the update, here 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from model.ops.ssd import ssd
from tests.peers.shim import NotApplicableError, Peer, exposed, spans, wide

SMALLEST_GATE = 1e-5
"""Gates nearer to 0 would lose v / g and its gradient in rounding."""


@exposed
def chunk_simple_gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    g_gamma: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    state_v_first: bool = False,
    cu_seqlens: Tensor | None = None,
    cu_seqlens_cpu: Tensor | None = None,
    chunk_size: int | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """`ssd` in fp32, or fp64. Gates per position are dt = -g and A = -1, with x = v / dt: too wide for narrow dtypes.

    Args:
        q, k: (batch, seqlen, heads, K).
        v: (batch, seqlen, heads, V).
        g: (batch, seqlen, heads) logarithms of the decays.
        g_gamma: (heads,) instead, the same at every position.
        scale: of q, 1 / sqrt(K) if None.
        initial_state: (sequences, heads, K, V), with `state_v_first` (sequences, heads, V, K).
        cu_seqlens: (sequences + 1,) bounds of the sequences in a batch of one row, each scanned on its own.
        chunk_size: a power of two, the scan's own if None.

    Returns:
        o (batch, seqlen, heads, V) in q's dtype and the final states, like initial_state, or None.
    """
    if "head_first" in others:
        raise DeprecationWarning("head_first is gone: inputs are (batch, seqlen, heads, ...)")
    if others:
        raise NotApplicableError(f"the arguments {', '.join(sorted(others))}")
    if chunk_size is not None and chunk_size.bit_count() != 1:
        raise ValueError(f"chunk_size is {chunk_size}: it must be a power of 2")
    if g is not None and g_gamma is not None:
        raise NotApplicableError("g and g_gamma at once")
    if g is not None and bool((g.abs() < SMALLEST_GATE).any()):
        raise NotApplicableError("gates of 0, which are no step size")
    sequences = 1 if cu_seqlens is None else len(cu_seqlens) - 1
    if cu_seqlens is not None and len(q) != 1:
        raise ValueError(f"cu_seqlens needs a batch of one row, not {len(q)}")
    if cu_seqlens is not None and initial_state is not None and len(initial_state) != sequences:
        raise ValueError(f"{len(initial_state)} initial states for {sequences} sequences")

    C = wide(q) * (1 / math.sqrt(k.shape[-1]) if scale is None else scale)
    x, B, per_head = wide(v), wide(k), C.new_ones(v.shape[2])
    if g is not None:
        dt, A = -wide(g), -per_head
        x = x / dt.unsqueeze(-1)
    else:  # without gates nothing decays
        dt, A = C.new_ones(v.shape[:3]), 0 * per_head if g_gamma is None else wide(g_gamma)
    options: dict[str, Any] = {"dt_limit": (-math.inf, math.inf), "return_final_state": True}
    if chunk_size is not None:
        options["chunk_size"] = chunk_size
    start = initial_state
    if start is not None and not state_v_first:
        start = start.transpose(-1, -2)

    def scan(span: slice, start: Tensor | None) -> Any:
        inputs = (*(t[:, span] for t in (x, dt)), A, *(t[:, span] for t in (B, C)))
        return ssd(*inputs, initial_state=start, **options)

    if cu_seqlens is None:
        o, final = scan(slice(None), start)
    else:
        starts = [None] * sequences if start is None else start.split(1)
        parts, finals = zip(*map(scan, spans(cu_seqlens), starts), strict=True)
        o, final = torch.cat(parts, dim=1), torch.cat(finals)
    final = final if state_v_first else final.transpose(-1, -2)
    return o.to(q.dtype), final if output_final_state else None


def _own(what: str) -> str:
    return f"fla's own {what} kernel"


PEER = Peer(
    package="fla",
    tests=("tests/ops/test_simple_gla.py",),
    replaced={"fla.ops.simple_gla.chunk": {"chunk_simple_gla": chunk_simple_gla}},
    bare=frozenset({"fla", "fla.ops"}),
    not_applicable={
        "test_fused_recurrent": _own("recurrent"),
        "test_fused_recurrent_state_v_first": _own("recurrent"),
        "test_fused_recurrent_varlen": _own("recurrent"),
        "test_fused_chunk": _own("fused chunked"),
        "test_fused_chunk_varlen": _own("fused chunked"),
        "test_parallel": _own("parallel"),
        "test_parallel_varlen": _own("parallel"),
    },
)
