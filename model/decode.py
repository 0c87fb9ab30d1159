"""Token-by-token decoding: the model's layers in the fewest passes over weights and states.

One row through a matrix is a stream over its weights. In fp32 on a CPU they are read where they are; elsewhere a second
copy is laid out for it (model.ops.row_linear).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.hybrid import Block, HybridLM
from model.layers.attention import Attention
from model.layers.mamba2 import Mamba2
from model.layers.mlp import MLP
from model.layers.norm import RMSNorm
from model.ops._common import compute_dtype
from model.ops.causal_conv1d import causal_conv1d_step
from model.ops.gated_rmsnorm import RowNorm
from model.ops.row_linear import row_linear
from model.ops.ssd import ssd_step
from model.state import AttentionState, LayerState, MambaState


class Mamba2Step:
    """One position of a Mamba2 mixer: its five projections and three convolutions packed into one of each."""

    def __init__(self, mixer: Mamba2) -> None:
        *into, out = mixer.projections()
        convs = (mixer.x_conv, mixer.B_conv, mixer.C_conv)
        self.mixer = mixer
        self.in_proj = _packed(into)
        self.out_proj = _packed([out])
        self.taps = torch.cat([conv.weight for conv in convs])
        self.conv_bias = _cat_biases(conv.bias for conv in convs)
        self.A = -torch.exp(mixer.scan.A_log)
        norm = mixer.norm
        self.norm = RowNorm(
            norm.weight, eps=norm.eps, group_size=norm.group_size, norm_before_gate=norm.norm_before_gate
        )
        d_inner, d_bc = mixer.x_proj.out_features, mixer.B_proj.out_features
        self.in_sizes = [d_inner, d_inner + 2 * d_bc, mixer.dt_proj.out_features]
        self.conv_sizes = [d_inner, d_bc, d_bc]

    def __call__(self, hidden: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """(batch, d_model) -> the same, and the state after."""
        mixer, batch = self.mixer, hidden.shape[0]
        z, xBC, dt = self.in_proj(hidden).split(self.in_sizes, dim=-1)
        xBC, conv = causal_conv1d_step(xBC, state.conv, self.taps, self.conv_bias)
        x, B, C = xBC.split(self.conv_sizes, dim=-1)
        y, ssm = ssd_step(
            x.view(batch, -1, mixer.headdim),
            dt,
            self.A,
            B.view(batch, -1, mixer.d_state),
            C.view(batch, -1, mixer.d_state),
            state.ssm,
            D=mixer.scan.D,
            dt_bias=mixer.scan.dt_bias,
            dt_softplus=True,
            dt_limit=mixer.scan.dt_limit,
        )
        return self.out_proj(self.norm(y.view(batch, -1), z)), MambaState(conv, ssm)


class AttentionStep:
    """One position of attention: the projections of queries, keys and values packed into one."""

    def __init__(self, mixer: Attention) -> None:
        *into, out = mixer.projections()
        self.mixer = mixer
        self.qkv_proj = _packed(into)
        self.o_proj = _packed([out])
        self.sizes = [projection.out_features for projection in into]

    def __call__(self, hidden: Tensor, state: AttentionState) -> tuple[Tensor, LayerState]:
        """(batch, d_model) -> the same, and the state after."""
        query, key, value = self.qkv_proj(hidden).unsqueeze(1).split(self.sizes, dim=-1)
        attended, after = self.mixer.mix(query, key, value, None, state)
        return self.o_proj(attended.squeeze(1)), after


class MLPStep:
    """One position of the MLP: gate and up projection packed into one."""

    def __init__(self, mixer: MLP) -> None:
        *into, out = mixer.projections()
        self.mixer = mixer
        self.up_proj = _packed(into)
        self.down_proj = _packed([out])

    def __call__(self, hidden: Tensor, state: None) -> tuple[Tensor, None]:
        """(batch, d_model) -> the same."""
        up, gate = self.up_proj(hidden), None
        if self.mixer.gate_proj is not None:
            gate, up = up.chunk(2, dim=-1)
        return self.down_proj(self.mixer.activate(up, gate)), None


class Decoder:
    """A model that goes on from a state one token at a time.

    The packed weights are copies: make a new decoder when the model's weights have changed.
    """

    def __init__(self, model: HybridLM) -> None:
        self.model = model
        self.blocks = [block for block in model.layers if isinstance(block, Block)]
        self.mixers = [_one_position(block.mixer) for block in self.blocks]
        self.norms = [_row_norm(block.norm) for block in self.blocks]
        self.norm = _row_norm(model.norm)
        self.head = row_linear([model.head_weight], [None])

    def step(self, tokens: Tensor, states: list[LayerState]) -> Tensor:
        """Take one more token per row, (batch,) int64, and return the next token's logits, (batch, vocab_size).

        Args:
            states: each layer's state; brought forward in place.
        """
        residual = self.model.embed(tokens)
        for i, (norm, mixer) in enumerate(zip(self.norms, self.mixers, strict=True)):
            mixed, states[i] = mixer(norm(residual), states[i])
            residual = self.blocks[i].add(residual, mixed)
        logits = self.head(self.model.scale_for_head(self.norm(residual)))
        return logits.to(compute_dtype(logits))


_Step = Callable[[Tensor, Any], tuple[Tensor, LayerState]]


def _one_position(mixer: nn.Module) -> _Step:
    """The mixer as a function of (batch, d_model) and its state; one with wrapped projections is not packed."""
    steps: tuple[tuple[type[Any], Callable[[Any], _Step]], ...] = (
        (Mamba2, Mamba2Step),
        (Attention, AttentionStep),
        (MLP, MLPStep),
    )
    for kind, pack in steps:
        if isinstance(mixer, kind) and all(type(child) is nn.Linear for child in mixer.projections()):
            return pack(mixer)

    def step(hidden: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        mixed, state = mixer(hidden.unsqueeze(1), None, state)
        return mixed.squeeze(1), state

    return step


def _row_norm(norm: RMSNorm) -> RowNorm:
    return RowNorm(norm.weight, eps=norm.eps, group_size=norm.weight.shape[0])


def _packed(projections: Sequence[nn.Linear]) -> Callable[[Tensor], Tensor]:
    return row_linear([layer.weight for layer in projections], [layer.bias for layer in projections])


def _cat_biases(biases: Iterable[Tensor | None]) -> Tensor | None:
    present = [bias for bias in biases if bias is not None]
    return torch.cat(present) if present else None
