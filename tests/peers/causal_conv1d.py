"""causal_conv1d's functions (Dao-AILab/causal-conv1d) on our operator, whose layout has the channels last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.ops.causal_conv1d import causal_conv1d, causal_conv1d_state, causal_conv1d_step
from tests.peers.shim import NotApplicableError, Peer, documents, exposed


def _activation(name: str | None) -> str | None:
    if name not in (None, "silu", "swish"):
        raise NotApplicableError(f"the activation {name!r}")
    return None if name is None else "silu"


@exposed
def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Any:
    """`causal_conv1d`, in either layout.

    Args:
        x: (batch, dim, seqlen).
        weight: (dim, width).
        bias: (dim,).
        seq_idx: (batch, seqlen), negative for padding: output 0.
        initial_states: (batch, dim, width - 1) inputs before the first position.
        final_states_out: (batch, dim, width - 1), to write the final states to.
        activation: None, "silu" or "swish", which are the same.

    Returns:
        y (batch, dim, seqlen) in x's dtype; with `return_final_states` also the last inputs (batch, dim, width - 1).
    """
    if seq_idx is not None and return_final_states:
        raise NotApplicableError("the final states of packed sequences")
    rows = x.transpose(1, 2)
    start = None if initial_states is None else initial_states.transpose(1, 2)
    y = causal_conv1d(
        *(rows, weight, bias),
        activation=_activation(activation),
        initial_state=start,
        seq_idx=None if seq_idx is None else documents(seq_idx),
    )
    if seq_idx is not None:
        y = y.masked_fill((seq_idx < 0).unsqueeze(-1), 0)
    y = y.transpose(1, 2)
    if not return_final_states:
        return y
    if start is None:
        start = rows.new_zeros(len(rows), weight.shape[1] - 1, rows.shape[2])
    final = causal_conv1d_state(rows, start).transpose(1, 2)
    return y, final if final_states_out is None else final_states_out.copy_(final)


@exposed
@torch.no_grad()
def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """`causal_conv1d_step` for each of the new positions; the buffer of past inputs is kept in plain torch.

    Args:
        x: (batch, dim) or (batch, dim, seqlen).
        conv_state: (entries, dim, length of at least width - 1) the last inputs, overwritten.
        weight: (dim, width).
        bias: (dim,).
        activation: None, "silu" or "swish".
        cache_seqlens: (batch,) inputs so far. The buffer is then a ring: input t lies at t modulo its length.
        conv_state_indices: (batch,) the entry of each row, negative for padding: output 0, no state changed.

    Returns:
        y, x's shape and dtype.
    """
    new = x.unsqueeze(-1) if x.dim() == 2 else x
    (dim, width), length, seqlen = weight.shape, conv_state.shape[-1], new.shape[-1]
    rows = conv_state if conv_state_indices is None else conv_state[conv_state_indices.clamp(min=0).long()]
    if cache_seqlens is None:
        before = rows[..., length - (width - 1) :]
        after = torch.cat([rows, new.to(rows.dtype)], dim=-1)[..., -length:]
    else:
        positions = torch.arange(1 - width, seqlen, device=x.device) + cache_seqlens.unsqueeze(-1).long()
        places = (positions % length).unsqueeze(1).expand(-1, dim, -1)
        before = rows.gather(2, places[..., : width - 1])
        kept = min(length, seqlen)
        after = rows.scatter(2, places[..., -kept:], new[..., -kept:].to(rows.dtype))
    state, outputs = before.transpose(1, 2), []
    for t in range(seqlen):
        y, state = causal_conv1d_step(new[..., t], state, weight, bias, activation=_activation(activation))
        outputs.append(y)
    y = torch.stack(outputs, dim=-1).reshape(x.shape)
    if conv_state_indices is None:
        conv_state.copy_(after)
        return y
    used = conv_state_indices >= 0
    conv_state[conv_state_indices[used].long()] = after[used]
    return y.masked_fill(~used.reshape(-1, *(1,) * (y.dim() - 1)), 0)


PEER = Peer(
    package="causal_conv1d",
    tests=("tests/test_causal_conv1d.py",),
    replaced={
        "causal_conv1d.causal_conv1d_interface": {
            "causal_conv1d_fn": causal_conv1d_fn,
            "causal_conv1d_update": causal_conv1d_update,
        }
    },
    extensions=frozenset({"causal_conv1d_cuda"}),
    not_applicable={
        "test_causal_conv1d_get_states": "causal_conv1d's kernel for the last inputs of packed sequences",
    },
)
