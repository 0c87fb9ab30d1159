"""mamba_ssm's functions (state-spaces/mamba) on our operators: the scan, its decode step, the gated norms."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops.gated_rmsnorm import gated_rmsnorm
from model.ops.ssd import ssd, ssd_step
from tests.peers.shim import NotApplicableError, Peer, documents, exposed, spans, wide


@exposed
def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    return_final_states: bool = False,
    return_varlen_states: bool = False,
) -> Any:
    """`ssd`, and beyond it a D of each channel, the gate z and one final state per packed sequence, in plain torch.

    Args:
        x, z: (batch, seqlen, nheads, headdim); y silu(z) is returned.
        dt: (batch, seqlen, nheads).
        A, dt_bias: (nheads,).
        B, C: (batch, seqlen, ngroups, dstate).
        D: (nheads,) or (nheads, headdim).
        initial_states: (batch, nheads, headdim, dstate), of the document with the number 0.
        seq_idx: (batch, seqlen).
        cu_seqlens: (sequences + 1,) bounds of the sequences in a batch of one row, for `return_varlen_states`.

    Returns:
        y (batch, seqlen, nheads, headdim) in x's dtype; after it, as asked for, the final states (batch, nheads,
        headdim, dstate) and those of each sequence (sequences, nheads, headdim, dstate).
    """
    per_channel = D is not None and D.dim() == 2
    options: dict[str, Any] = {
        "dt_bias": dt_bias,
        "dt_softplus": dt_softplus,
        "dt_limit": tuple(dt_limit),
        "chunk_size": chunk_size,
        "return_final_state": True,
    }
    start = initial_states
    if start is not None and seq_idx is not None:  # ours gives it to a row's first document, whatever its number
        start = start * (seq_idx[:, 0] == 0)[:, None, None, None]
    y, final = ssd(
        *(x, dt, A, B, C),
        D=None if per_channel else D,
        initial_state=start,
        seq_idx=None if seq_idx is None else documents(seq_idx),
        **options,
    )
    if per_channel:
        y = wide(y) + wide(x) * wide(D)
    if z is not None:
        y = wide(y) * F.silu(wide(z))
    y = y.to(x.dtype)
    outputs = [y, final] if return_final_states else [y]
    if return_varlen_states:
        if initial_states is not None or seq_idx is None:
            raise NotApplicableError("states of packed sequences with initial_states or without seq_idx")
        if cu_seqlens is None or len(x) != 1:
            raise ValueError("return_varlen_states needs cu_seqlens and a batch of one row")
        states = [ssd(x[:, s], dt[:, s], A, B[:, s], C[:, s], **options)[1] for s in spans(cu_seqlens)]
        outputs.append(torch.cat(states))
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


@exposed
@torch.no_grad()
def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """`ssd_step`, where A is the same for all of dstate: our scan has one decay per head.

    If A, dt, dt_bias or D differ within a head, each channel is a head of its own. Without the axis of heads there is
    one, and one group.

    Args:
        state: (entries, nheads, headdim, dstate), overwritten.
        x, dt, z: (batch, nheads, headdim).
        A: (nheads, headdim, dstate).
        B, C: (batch, ngroups, dstate).
        D, dt_bias: (nheads, headdim).
        state_batch_indices: (batch,) the entry of each row, negative for padding: output 0, no state changed.

    Returns:
        y (batch, nheads, headdim) in x's dtype.
    """
    whole, entries = x.shape, state
    if state.dim() == 3:
        entries, x, dt, B, C = (tensor.unsqueeze(1) for tensor in (state, x, dt, B, C))
        A = A.unsqueeze(0)
        D, dt_bias = (None if tensor is None else tensor.unsqueeze(0) for tensor in (D, dt_bias))
    if not _same(A, -1):
        raise NotApplicableError("an A that differs along dstate (Mamba1's scan)")
    batch, nheads, headdim = x.shape
    A = A[..., 0]
    by_head = all(_same(tensor, -1) for tensor in (A, dt, dt_bias, D) if tensor is not None)
    width = headdim if by_head else 1
    A, dt, dt_bias, D = (
        None if tensor is None else tensor.reshape(*tensor.shape[:-2], -1, width)[..., 0]
        for tensor in (A, dt, dt_bias, D)
    )
    rows = entries if state_batch_indices is None else entries[state_batch_indices.clamp(min=0).long()]
    now = wide(rows).reshape(batch, nheads * headdim // width, width, -1).contiguous()
    y, now = ssd_step(
        *(wide(x).reshape(batch, -1, width), dt, A, B, C, now),
        D=D,
        dt_bias=dt_bias,
        dt_softplus=dt_softplus,
        dt_limit=(-math.inf, math.inf),
    )
    y, now = y.reshape(whole), now.reshape(rows.shape).to(entries.dtype)
    if z is not None:
        y = y * F.silu(wide(z))
    if state_batch_indices is None:
        entries.copy_(now)
    else:
        used = state_batch_indices >= 0
        entries[state_batch_indices[used].long()] = now[used]
        y = y.masked_fill(~used.reshape(-1, *(1,) * (y.dim() - 1)), 0)
    return y.to(x.dtype)


def _same(tensor: Tensor, dim: int) -> bool:
    """Whether the values along an axis are all equal: peers look at strides, which says less."""
    return bool((tensor == tensor.narrow(dim, 0, 1)).all())


@exposed
def layernorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    is_rms_norm: bool = False,
) -> Tensor:
    """`gated_rmsnorm`, and in plain torch the bias and the mean that a LayerNorm takes off first.

    Args:
        x, z: (..., d).
        weight, bias: (d,).

    Returns:
        (..., d) in x's dtype.
    """
    value, gate = x, z
    if not is_rms_norm:
        value = wide(x)
        if gate is not None and not norm_before_gate:
            value, gate = value * F.silu(wide(gate)), None
        groups = value.unflatten(-1, (-1, group_size or value.shape[-1]))
        value = (groups - groups.mean(-1, keepdim=True)).flatten(-2)
    options: dict[str, Any] = {"eps": eps, "group_size": group_size, "norm_before_gate": norm_before_gate}
    if bias is None:
        return gated_rmsnorm(value, weight, gate=gate, **options).to(x.dtype)
    y = gated_rmsnorm(wide(value), weight, gate=None if norm_before_gate else gate, **options) + wide(bias)
    if gate is not None and norm_before_gate:
        y = y * F.silu(wide(gate))
    return y.to(x.dtype)


@exposed
def rmsnorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor:
    """`layernorm_fn` with `is_rms_norm`."""
    return layernorm_fn(x, weight, bias, z, eps, group_size, norm_before_gate, is_rms_norm=True)


OPS = "mamba_ssm.ops.triton"
PEER = Peer(
    package="mamba_ssm",
    tests=(
        "tests/ops/triton/test_selective_state_update.py",
        "tests/ops/triton/test_layernorm_gated.py",
        "tests/ops/triton/test_ssd.py",
        "tests/test_mamba2_d_has_hdim.py",
    ),
    replaced={
        f"{OPS}.ssd_combined": {"mamba_chunk_scan_combined": mamba_chunk_scan_combined},
        f"{OPS}.selective_state_update": {"selective_state_update": selective_state_update},
        f"{OPS}.layernorm_gated": {"layernorm_fn": layernorm_fn, "rmsnorm_fn": rmsnorm_fn},
    },
    bare=frozenset({"mamba_ssm"}),
    extensions=frozenset({"selective_scan_cuda"}),
    not_applicable={"test_chunk_state_varlen": "mamba_ssm's kernel for a step of its scan"},
)
