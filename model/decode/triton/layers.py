"""One position of each layer as a few launches, from the normed residual stream to what is added to it.

Mamba2     linear, conv, ssd, gated norm, linear
attention  linear, append, attend, merge, linear
MLP        linear (a gated one: and gate), linear
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.decode import plain
from model.decode.triton.attention import Attend
from model.decode.triton.conv import Conv
from model.decode.triton.linear import Linear, gated
from model.decode.triton.norm import AddNorm, GatedNorm
from model.hybrid import HybridLM
from model.layers.attention import Attention
from model.layers.mamba2 import Mamba2
from model.layers.mlp import MLP
from model.ops.ssd.triton.step import step


class Place(NamedTuple):
    """Where in its text each row is, on the device.

    Attributes:
        position: (1,) int64 positions that attention holds.
        starts: (rows,) int64 how many of them, the first ones, are padding.
        turns: cosines and sines of the new position, (rows, rotary_dim / 2) each; None without rotary embedding.
    """

    position: Tensor
    starts: Tensor
    turns: tuple[Tensor, Tensor] | None


class Mamba2Layer:
    """Its memory: the last inputs of the convolution and the state of the scan, both changed in place."""

    def __init__(self, mixer: Mamba2) -> None:
        *into, out = mixer.projections()
        self._in_proj, self._out_proj = _together(into), _together([out])
        self._conv, self._norm = Conv(*plain.packed_convolution(mixer)), GatedNorm(mixer.norm)
        scan = mixer.scan
        self._A, self._D, self._dt_bias = -torch.exp(scan.A_log), scan.D.detach(), scan.dt_bias.detach()
        self._limit, self._headdim, self._d_state = scan.dt_limit, mixer.headdim, mixer.d_state
        self._d_inner, self._d_bc = mixer.x_proj.out_features, mixer.B_proj.out_features

    def __call__(self, hidden: Tensor, memory: Sequence[Tensor], place: Place) -> Tensor:
        conv, ssm = memory
        rows, d_inner, d_bc = len(hidden), self._d_inner, self._d_bc
        projected = self._in_proj(hidden)
        end = 2 * d_inner + 2 * d_bc
        xBC = self._conv(projected[:, d_inner:end], conv)
        B, C = xBC[:, d_inner : d_inner + d_bc], xBC[:, d_inner + d_bc :]
        y = step(
            xBC[:, :d_inner].view(rows, -1, self._headdim),
            projected[:, end:],
            B.view(rows, -1, self._d_state),
            C.view(rows, -1, self._d_state),
            self._A,
            ssm,
            self._D,
            self._dt_bias,
            True,
            self._limit,
        )
        return self._out_proj(self._norm(y.view(rows, -1), projected))


class AttentionLayer:
    """Its memory: the buffer of keys and values."""

    def __init__(self, mixer: Attention) -> None:
        *into, out = mixer.projections()
        self._qkv_proj, self._o_proj = _together(into), _together([out])
        d = mixer.head_dim
        heads, kv_heads = mixer.q_proj.out_features // d, mixer.k_proj.out_features // d
        rotary_dim = 0 if mixer.rotary is None else mixer.rotary.rotary_dim
        self._attend = Attend(heads, kv_heads, d, rotary_dim, d**-0.5 if mixer.scale is None else mixer.scale)

    def __call__(self, hidden: Tensor, memory: Sequence[Tensor], place: Place) -> Tensor:
        return self._o_proj(self._attend(self._qkv_proj(hidden), memory[0], *place))


class MLPLayer:
    """It has no memory."""

    def __init__(self, mixer: MLP) -> None:
        *into, out = mixer.projections()
        self._gated = mixer.gate_proj is not None
        self._up_proj = _together(into, None if self._gated else mixer.activation)
        self._down_proj = _together([out])

    def __call__(self, hidden: Tensor, memory: Sequence[Tensor], place: Place) -> Tensor:
        up = self._up_proj(hidden)
        return self._down_proj(gated(up) if self._gated else up)


KINDS: dict[type, type[Mamba2Layer | AttentionLayer | MLPLayer]] = {
    Mamba2: Mamba2Layer,
    Attention: AttentionLayer,
    MLP: MLPLayer,
}


class Model:
    """A whole model at one position."""

    def __init__(self, model: HybridLM) -> None:
        self._model = model
        self._held = (
            model.embedding.weight.detach()
        )  # a recorded graph reads it where it is, whatever the model gets later
        multiplier = model.config.residual_multiplier
        self._norms = [AddNorm(block.norm, multiplier) for block in model.layers]  # type: ignore[arg-type]
        self._layers = [KINDS[type(block.mixer)](block.mixer) for block in model.layers]  # type: ignore[arg-type]
        self._last_norm = AddNorm(model.norm, multiplier)
        scale = 1 / model.config.logits_scaling
        self._head = Linear([model.head_weight], [None], scale=scale, out_dtype=torch.float32)
        rotary = next((block.mixer.rotary for block in model.layers if type(block.mixer) is Attention), None)
        self._rates = None if rotary is None else rotary.rates(model.embedding.weight.device)
        self._amplitude = 1.0 if rotary is None else rotary.attention_factor()

    def __call__(
        self, tokens: Tensor, memories: Sequence[Sequence[Tensor]], position: Tensor, starts: Tensor
    ) -> Tensor:
        """Take one more token per row; memories and position are brought forward in place.

        Args:
            tokens: (rows,) int64.
            memories: of each layer.
            position, starts: see `Place`.

        Returns:
            Logits, (rows, vocab_size) in fp32.
        """
        residual, mixed = self._model.embed(tokens), None
        place = Place(position, starts, self._turns(position, starts))
        for norm, layer, memory in zip(self._norms, self._layers, memories, strict=True):
            mixed = layer(norm(residual, mixed), memory, place)
        logits = self._head(self._last_norm(residual, mixed))
        position.add_(1)
        return logits

    def _turns(self, position: Tensor, starts: Tensor) -> tuple[Tensor, Tensor] | None:
        """See `Place`; once for all layers."""
        if self._rates is None:
            return None
        angles = (position - starts).unsqueeze(1) * self._rates
        return angles.cos() * self._amplitude, angles.sin() * self._amplitude


def _together(projections: Sequence[nn.Linear], activation: str | None = None) -> Linear:
    weights, biases = [layer.weight for layer in projections], [layer.bias for layer in projections]
    return Linear(weights, biases, activation=activation)
