"""What a model remembers between calls while it decodes."""

from dataclasses import dataclass
from typing import NamedTuple

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

    def clone(self) -> "MambaState":
        """An independent copy."""
        return MambaState(*(tensor.clone() for tensor in self))


@dataclass(frozen=True)
class AttentionState:
    """Keys and values of one attention layer, in a buffer that doubles when it is full.

    Attributes:
        buffer: (2, batch, n_kv_heads, capacity, head_dim) keys and values.
        length: positions held.
    """

    buffer: Tensor
    length: int = 0

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
        buffer = self.buffer
        if length > buffer.shape[3] or buffer.dtype != keys.dtype:
            capacity = max(length, 2 * buffer.shape[3], _FIRST_CAPACITY)
            buffer = keys.new_empty(*buffer.shape[:3], capacity, buffer.shape[4])
            buffer[:, :, :, : self.length] = self.buffer[:, :, :, : self.length]
        buffer[0, :, :, self.length : length] = keys
        buffer[1, :, :, self.length : length] = values
        return AttentionState(buffer, length)

    def clone(self) -> "AttentionState":
        """An independent copy."""
        return AttentionState(self.buffer.clone(), self.length)


LayerState = MambaState | AttentionState | None
"""State of one layer; an MLP has none."""


@dataclass(frozen=True)
class DecodeState:
    """State of a whole model, one entry per layer.

    A forward pass takes a state over: continue with the one it returns, or `clone` first to branch.
    """

    layers: tuple[LayerState, ...]

    def clone(self) -> "DecodeState":
        """An independent copy."""
        return DecodeState(tuple(None if layer is None else layer.clone() for layer in self.layers))
