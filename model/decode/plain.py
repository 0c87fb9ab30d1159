"""One position of each layer in torch, on any device: what is the same for every token is made once."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.hybrid import Block, HybridLM
from model.layers.attention import Attention
from model.layers.mamba2 import Mamba2
from model.layers.mlp import MLP
from model.layers.norm import GatedRMSNorm, RMSNorm
from model.ops._common import compute_dtype
from model.ops.add_rmsnorm import add
from model.ops.causal_conv1d import causal_conv1d_step
from model.ops.ssd import ssd_step
from model.state import AttentionState, LayerState, MambaState


class Layer:
    """A block as a function of the residual stream, (batch, d_model), and its state."""

    def __init__(self, block: Block) -> None:
        self._multiplier = block.residual_multiplier
        self._norm = Norm(block.norm)
        self._mixer = _one_position(block.mixer)

    def __call__(self, residual: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Both after one more position; the state is brought forward in place."""
        mixed, state = self._mixer(self._norm(residual), state)
        return add(residual, mixed, self._multiplier), state


class Head:
    """The residual stream, (batch, d_model) -> logits, (batch, vocab_size)."""

    def __init__(self, model: HybridLM) -> None:
        self._model = model
        self._norm = Norm(model.norm)
        self._head = Linear([model.head_weight], [None])

    def __call__(self, residual: Tensor) -> Tensor:
        logits = self._head(self._model.scale_for_head(self._norm(residual)))
        return logits.to(compute_dtype(logits))


class Mamba2Step:
    """A Mamba2 mixer: its five projections and three convolutions packed into one of each."""

    def __init__(self, mixer: Mamba2) -> None:
        *into, out = mixer.projections()
        self.mixer = mixer
        self.in_proj = _packed(into)
        self.out_proj = _packed([out])
        self.taps, self.conv_bias = packed_convolution(mixer)
        self.A = -torch.exp(mixer.scan.A_log)
        self.norm = Norm(mixer.norm)
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
    """Attention: the projections of queries, keys and values packed into one."""

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
    """The MLP: gate and up projection packed into one."""

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


class Linear:
    """Several linear layers of the same input as one, in a copy of their weights, (in, out).

    On a CPU a batched product gives each thread a block of columns, where a product of one row would run on a single
    thread.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        weight = torch.cat([weight.detach().t() for weight in weights], dim=1)
        threads = torch.get_num_threads() if weight.device.type == "cpu" else 1
        count = threads if weight.shape[1] % threads == 0 else 1
        self._blocks = weight.unflatten(1, (count, -1)).movedim(1, 0).contiguous()
        self._bias = _all(weights, biases) if any(bias is not None for bias in biases) else None

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, sum of outs), the outputs one after another."""
        y = torch.bmm(x.expand(len(self._blocks), -1, -1), self._blocks).movedim(0, 1).reshape(x.shape[0], -1)
        return y if self._bias is None else y.add_(self._bias)


class Norm:
    """`gated_rmsnorm` of a few rows in few operator calls: the mean square is a product with a column of 1 / d."""

    def __init__(self, norm: RMSNorm | GatedRMSNorm) -> None:
        self._weight = norm.weight.detach()
        self._group_size, self._gated_after = len(self._weight), False
        if isinstance(norm, GatedRMSNorm):
            self._group_size, self._gated_after = norm.group_size, norm.norm_before_gate
        dtype = compute_dtype(self._weight)
        self._eps = self._weight.new_full((1, 1), norm.eps, dtype=dtype)
        self._mean = self._weight.new_full((self._group_size, 1), 1 / self._group_size, dtype=dtype)

    def __call__(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """(rows, d) and its gate -> (rows, d) in the dtype of the weight."""
        if gate is None:
            return self._norm(x)
        return self._norm(x) * F.silu(gate) if self._gated_after else self._norm(x * F.silu(gate))

    def _norm(self, x: Tensor) -> Tensor:
        groups = x.to(self._mean.dtype).view(-1, self._group_size)
        inverse = torch.addmm(self._eps, groups * groups, self._mean).rsqrt_()
        return (groups * inverse).view(x.shape).mul_(self._weight).to(self._weight.dtype)


def packed_convolution(mixer: Mamba2) -> tuple[Tensor, Tensor | None]:
    """Taps (channels, d_conv) and bias (channels,) of the convolutions of x, B and C as one."""
    convs = (mixer.x_conv, mixer.B_conv, mixer.C_conv)
    biases: list[Tensor] = [conv.bias for conv in convs if conv.bias is not None]
    taps: list[Tensor] = [conv.weight for conv in convs]
    return torch.cat(taps), torch.cat(biases) if biases else None


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


def _packed(projections: Iterable[nn.Linear]) -> Linear:
    layers = list(projections)
    return Linear([layer.weight for layer in layers], [layer.bias for layer in layers])


def _all(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    pairs = zip(weights, biases, strict=True)
    return torch.cat([weight.new_zeros(len(weight)) if bias is None else bias.detach() for weight, bias in pairs])
