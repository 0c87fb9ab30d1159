"""What a model remembers between calls while it decodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_FIRST_CAPACITY = 64


class MambaState(NamedTuple):
    """State of one Mamba2 layer: its size does not depend on the positions seen.

    Attributes:
        conv: (batch, d_conv - 1, d_inner + 2 n_groups d_state) the last inputs of the x, B and C convolutions.
        ssm: (batch, nheads, headdim, d_state) the state of the scan, fp32.
    """

    conv: Tensor
    ssm: Tensor

    def select(self, rows: Tensor) -> "MambaState":
        """An independent copy of these rows, (n,) int64, in this order."""
        return MambaState(self.conv[rows], self.ssm[rows])

    @staticmethod
    def cat(states: Sequence["MambaState"]) -> "MambaState":
        """One batch of the rows of several."""
        return MambaState(*(torch.cat(tensors) for tensors in zip(*states, strict=True)))


@dataclass(frozen=True)
class AttentionState:
    """Keys and values of one attention layer, in a buffer that doubles when it is full.

    Attributes:
        buffer: (2, batch, n_kv_heads, capacity, head_dim) keys and values.
        length: positions held, by each row.
        starts: (batch,) int64 how many of them, the first ones, are padding; None where there is none.
    """

    buffer: Tensor
    length: int = 0
    starts: Tensor | None = None

    @property
    def keys(self) -> Tensor:
        """(batch, n_kv_heads, length, head_dim)."""
        return self.buffer[0, :, :, : self.length]

    @property
    def values(self) -> Tensor:
        """(batch, n_kv_heads, length, head_dim)."""
        return self.buffer[1, :, :, : self.length]

    def append(self, keys: Tensor, values: Tensor) -> "AttentionState":
        """The state with more positions; it shares this one's buffer, so this one must not be used again."""
        length = self.length + keys.shape[2]
        buffer = self.with_room(length, keys.dtype)
        buffer[0, :, :, self.length : length] = keys
        buffer[1, :, :, self.length : length] = values
        return AttentionState(buffer, length, self.starts)

    def with_room(self, length: int, dtype: torch.dtype) -> Tensor:
        """The buffer, or where it has no room for `length` positions or another dtype a larger copy."""
        buffer = self.buffer
        if length > buffer.shape[3] or buffer.dtype != dtype:
            capacity = max(length, 2 * buffer.shape[3], _FIRST_CAPACITY)
            buffer = buffer.new_empty(*buffer.shape[:3], capacity, buffer.shape[4], dtype=dtype)
            buffer[:, :, :, : self.length] = self.buffer[:, :, :, : self.length]
        return buffer

    def select(self, rows: Tensor) -> "AttentionState":
        """An independent copy of these rows, (n,) int64, in this order."""
        starts = None if self.starts is None else self.starts[rows]
        return AttentionState(self.buffer[:, rows, :, : self.length], self.length, starts)

    @staticmethod
    def cat(states: Sequence["AttentionState"]) -> "AttentionState":
        """One batch of the rows of several, which have no padding; the shorter ones get some before them."""
        length = max(state.length for state in states)
        padded = [F.pad(torch.stack([state.keys, state.values]), (0, 0, length - state.length, 0)) for state in states]
        starts = [
            torch.full(state.buffer.shape[1:2], length - state.length, device=state.buffer.device) for state in states
        ]
        return AttentionState(torch.cat(padded, dim=1), length, torch.cat(starts))


LayerState = MambaState | AttentionState | None
"""State of one layer; an MLP has none."""


@dataclass(frozen=True)
class DecodeState:
    """State of a whole model after some tokens.

    A forward pass takes a state over: continue with the one it returns, or `clone` first to branch.

    Attributes:
        layers: one entry per layer; only those of attention grow with the tokens.
        ids: (batch, length) int64 the tokens that it has read.
    """

    layers: tuple[LayerState, ...]
    ids: Tensor

    def clone(self) -> "DecodeState":
        """An independent copy."""
        return self.select(torch.arange(len(self.ids), device=self.ids.device))

    def expand(self, batch_size: int) -> "DecodeState":
        """Independent copies, as a batch, of a state of one row."""
        if len(self.ids) != 1:
            raise ValueError(f"the state has {len(self.ids)} rows: only one of a single row can be expanded")
        return self.select(self.ids.new_zeros(batch_size))

    def select(self, rows: Tensor) -> "DecodeState":
        """An independent copy of these rows, (n,) int64, in this order."""
        return DecodeState(
            tuple(None if layer is None else layer.select(rows) for layer in self.layers), self.ids[rows]
        )


def cat_layers(states: Sequence[Sequence[LayerState]]) -> list[LayerState]:
    """The layers' states of one batch of the rows of several, whose lengths may differ."""
    merged: list[LayerState] = []
    for layer in zip(*states, strict=True):
        mamba = [state for state in layer if isinstance(state, MambaState)]
        attention = [state for state in layer if isinstance(state, AttentionState)]
        merged.append(MambaState.cat(mamba) if mamba else AttentionState.cat(attention) if attention else None)
    return merged
