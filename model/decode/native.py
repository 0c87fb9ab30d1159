"""One position of each layer in C (c/), a call per layer: fp32 on a CPU, weights read where they lie.

A framework's 5 to 10 us per operator, some 50 operators a layer, are as long as the arithmetic of a small model.
"""

import ctypes
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.config import HybridConfig
from model.decode import plain
from model.hybrid import Block, HybridLM
from model.layers.attention import Attention
from model.layers.mamba2 import Mamba2
from model.layers.mlp import MLP
from model.layers.norm import GatedRMSNorm, RMSNorm
from model.ops._compiler import load, warn
from model.state import AttentionState, LayerState, MambaState

TOLERANCE = 1e-4
"""Largest difference from torch, relative to the largest value, that rounding explains on a small model."""

_SIZE, _INT, _FLOAT, _POINTER = ctypes.c_longlong, ctypes.c_int, ctypes.c_float, ctypes.c_void_p
_ACTIVATIONS = ("gelu", "relu2", "silu-gated")
"""In C's order."""

_PLAIN = (Tensor, nn.Parameter)
"""Types whose data lie at their address; others may be distributed, fake or traced."""


class _Norm(ctypes.Structure):
    _fields_ = (("d", _SIZE), ("group", _SIZE), ("weight", _POINTER), ("eps", _FLOAT), ("norm_before_gate", _INT))


class _Linear(ctypes.Structure):
    _fields_ = (
        *(("in_", _SIZE), ("out", _SIZE), ("parts", _INT)),
        *(("outs", ctypes.POINTER(_SIZE)), ("weights", ctypes.POINTER(_POINTER)), ("biases", ctypes.POINTER(_POINTER))),
    )


class _Scan(ctypes.Structure):
    _fields_ = (
        *((name, _SIZE) for name in ("nheads", "headdim", "ngroups", "dstate")),
        *(("A", _POINTER), ("D", _POINTER), ("dt_bias", _POINTER)),
        *(("dt_min", _FLOAT), ("dt_max", _FLOAT)),
    )


class _Mamba2(ctypes.Structure):
    _fields_ = (
        *(("norm", _Norm), ("gated", _Norm), ("in_proj", _Linear), ("out_proj", _Linear), ("scan", _Scan)),
        *(("width", _SIZE), ("taps", _POINTER), ("conv_bias", _POINTER), ("multiplier", _FLOAT)),
    )


class _Attention(ctypes.Structure):
    _fields_ = (
        *(("norm", _Norm), ("qkv_proj", _Linear), ("o_proj", _Linear)),
        *(("heads", _SIZE), ("kv_heads", _SIZE), ("head_dim", _SIZE), ("scale", _FLOAT)),
        *(("half", _SIZE), ("rates", _POINTER), ("amplitude", _FLOAT), ("multiplier", _FLOAT)),
    )


class _MLP(ctypes.Structure):
    _fields_ = (
        *(("norm", _Norm), ("up_proj", _Linear), ("down_proj", _Linear)),
        *(("activation", _INT), ("multiplier", _FLOAT)),
    )


class _Head(ctypes.Structure):
    _fields_ = (("norm", _Norm), ("linear", _Linear), ("scaling", _FLOAT))


_ARGUMENTS = {  # after the layer, the number of rows and the residual stream; before the number of threads
    "mamba2_step": (_POINTER, _POINTER),  # the states
    "attention_step": (_POINTER, _POINTER, _SIZE, _SIZE, _POINTER),  # keys, values, capacity, past, starts
    "mlp_step": (),
    "head_step": (_POINTER,),  # logits
}


def layer(block: Block) -> "Mamba2Layer | AttentionLayer | MLPLayer | None":
    """The block in C; None where C does not take it: then torch does."""
    mixer = block.mixer
    if type(mixer) not in _KINDS or not all(map(lies_plainly, block.parameters())):
        return None
    if any(type(child) is not nn.Linear for child in mixer.projections()):  # type: ignore[operator]
        return None
    return _KINDS[type(mixer)](block) if works() else None


def head(model: HybridLM) -> "Head | None":
    """The last norm and the head in C; None where C does not take them."""
    if not all(map(lies_plainly, (model.norm.weight, model.head_weight))) or not works():
        return None
    return Head(model)


@cache
def works() -> bool:
    """Whether the C code is there and does on a small model what torch does; asked once per process."""
    if _library() is None:
        return False
    plainly = (
        torch.device("cpu"),
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
    )
    with ExitStack() as stack:
        for context in plainly:
            stack.enter_context(context)
        torch.manual_seed(0)
        config = HybridConfig(
            pattern="M*-", vocab_size=41, d_model=36, d_state=20, headdim=12, n_groups=2, n_heads=4, n_kv_heads=2,
            head_dim=10, d_ff=43, rope_theta=100.0,
        )  # fmt: skip
        model = HybridLM(config).to(torch.float32)
        blocks = [block for block in model.layers if isinstance(block, Block)]
        good = all(_agree(model, blocks, rows) for rows in (1, 2, 7, 19))
    if not good:
        warn("the compiled code for decoding does not compute what torch computes")
    return good


def _agree(model: HybridLM, blocks: Sequence[Block], rows: int) -> bool:
    """Whether three positions of some rows come out as in torch."""
    ours, theirs = (list(model.new_state(rows).layers) for _ in range(2))
    for _ in range(3):
        residual = torch.randn(rows, model.config.d_model, dtype=torch.float32)
        mine, other = residual.clone(), residual
        for i, block in enumerate(blocks):
            mine, ours[i] = _KINDS[type(block.mixer)](block)(mine, ours[i])
            other, theirs[i] = plain.Layer(block)(other, theirs[i])
        mine, other = Head(model)(mine), plain.Head(model)(other)
        if not bool((mine - other).abs().max() <= TOLERANCE * other.abs().max()):
            return False
    return True


class _Native:
    """A structure in C, and what it points to."""

    def __init__(self, function: str, d_model: int) -> None:
        library = _library()
        assert library is not None
        self._function, self._d_model = getattr(library, function), d_model
        self._held: list[Any] = []

    def _call(self, structure: ctypes.Structure, residual: Tensor, *arguments: int | None) -> None:
        whole = residual.dtype is torch.float32 and residual.is_contiguous() and residual.is_cpu
        if not whole or residual.dim() != 2 or residual.shape[1] != self._d_model:
            raise ValueError(
                f"the residual stream is {tuple(residual.shape)} in {residual.dtype} on {residual.device}: it must be "
                f"(batch, {self._d_model}), contiguous, in fp32 on a CPU"
            )
        if self._function(
            ctypes.addressof(structure),
            *(len(residual), residual.data_ptr()),
            *(*arguments, torch.get_num_threads()),
        ):
            raise MemoryError("no memory for one position of a layer")

    def _address(self, tensor: Tensor | None) -> int | None:
        """Of a tensor, or of a contiguous copy, which stays; null for None."""
        if tensor is None:
            return None
        whole = tensor.detach().contiguous()
        self._held.append(whole)
        return whole.data_ptr()

    def _norm(self, norm: RMSNorm | GatedRMSNorm) -> _Norm:
        d = len(norm.weight)
        if isinstance(norm, GatedRMSNorm):
            return _Norm(d, norm.group_size, self._address(norm.weight), norm.eps, norm.norm_before_gate)
        return _Norm(d, d, self._address(norm.weight), norm.eps, False)

    def _linear(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> _Linear:
        outs = [len(weight) for weight in weights]
        addresses = _POINTER * len(outs)
        arrays = (
            (_SIZE * len(outs))(*outs),
            addresses(*map(self._address, weights)),
            addresses(*map(self._address, biases)),
        )
        return _Linear(weights[0].shape[1], sum(outs), len(outs), *arrays)

    def _packed(self, projections: Sequence[nn.Linear]) -> _Linear:
        return self._linear([layer.weight for layer in projections], [layer.bias for layer in projections])


class Mamba2Layer(_Native):
    """A block with a Mamba2 mixer."""

    def __init__(self, block: Block) -> None:
        super().__init__("mamba2_step", len(block.norm.weight))
        mixer = block.mixer
        assert isinstance(mixer, Mamba2)
        *into, out = mixer.projections()
        taps, bias = plain.packed_convolution(mixer)
        scan = mixer.scan
        heads, (channels, width) = len(scan.A_log), taps.shape
        groups = mixer.B_proj.out_features // mixer.d_state
        self._conv, self._ssm = (width - 1, channels), (heads, mixer.headdim, mixer.d_state)
        self._layer = _Mamba2(
            *(self._norm(block.norm), self._norm(mixer.norm), self._packed(into), self._packed([out])),
            _Scan(
                *(heads, mixer.headdim, groups, mixer.d_state),
                *map(self._address, (-torch.exp(scan.A_log), scan.D, scan.dt_bias)),
                *scan.dt_limit,
            ),
            *(width, self._address(taps.t()), self._address(bias), block.residual_multiplier),
        )

    def __call__(self, residual: Tensor, state: LayerState) -> tuple[Tensor, MambaState]:
        """As `plain.Layer`; the residual stream too is brought forward in place."""
        assert isinstance(state, MambaState)
        rows = len(residual)
        conv = _whole(state.conv, (rows, *self._conv))
        ssm = _whole(state.ssm, (rows, *self._ssm))
        self._call(self._layer, residual, conv.data_ptr(), ssm.data_ptr())
        return residual, MambaState(conv, ssm)


class AttentionLayer(_Native):
    """A block with attention."""

    def __init__(self, block: Block) -> None:
        super().__init__("attention_step", len(block.norm.weight))
        mixer = block.mixer
        assert isinstance(mixer, Attention)
        *into, out = mixer.projections()
        heads, kv_heads = (projection.out_features // mixer.head_dim for projection in into[:2])
        rotary = mixer.rotary
        rates = torch.empty(0) if rotary is None else rotary.rates(torch.device("cpu")).to(torch.float32)
        self._heads = (kv_heads, mixer.head_dim)
        self._layer = _Attention(
            *(self._norm(block.norm), self._packed(into), self._packed([out])),
            *(heads, kv_heads, mixer.head_dim),
            mixer.head_dim**-0.5 if mixer.scale is None else mixer.scale,
            *(len(rates), self._address(rates), 1.0 if rotary is None else rotary.attention_factor()),
            block.residual_multiplier,
        )

    def __call__(self, residual: Tensor, state: LayerState) -> tuple[Tensor, AttentionState]:
        """As `plain.Layer`; the residual stream too is brought forward in place."""
        assert isinstance(state, AttentionState)
        rows, (kv_heads, head_dim), past = len(residual), self._heads, state.length
        buffer = state.with_room(past + 1, torch.float32)
        capacity = buffer.shape[3]
        buffer = _whole(buffer, (2, rows, kv_heads, capacity, head_dim))
        starts = state.starts
        if starts is not None and (starts.shape != (rows,) or starts.dtype is not torch.int64 or not starts.is_cpu):
            raise ValueError(f"starts is {tuple(starts.shape)} in {starts.dtype}: it must be ({rows},) in int64")
        starts = None if starts is None else starts.contiguous()
        self._call(
            self._layer,
            residual,
            *(buffer.data_ptr(), buffer.data_ptr() + buffer.stride(0) * buffer.element_size()),
            *(capacity, past),
            None if starts is None else starts.data_ptr(),
        )
        return residual, AttentionState(buffer, past + 1, starts)


class MLPLayer(_Native):
    """A block with an MLP."""

    def __init__(self, block: Block) -> None:
        super().__init__("mlp_step", len(block.norm.weight))
        mixer = block.mixer
        assert isinstance(mixer, MLP)
        *into, out = mixer.projections()
        self._layer = _MLP(
            *(self._norm(block.norm), self._packed(into), self._packed([out])),
            *(_ACTIVATIONS.index(mixer.activation), block.residual_multiplier),
        )

    def __call__(self, residual: Tensor, state: LayerState) -> tuple[Tensor, None]:
        """As `plain.Layer`; the residual stream is brought forward in place."""
        self._call(self._layer, residual)
        return residual, None


class Head(_Native):
    """As `plain.Head`."""

    def __init__(self, model: HybridLM) -> None:
        super().__init__("head_step", len(model.norm.weight))
        self._vocab_size = len(model.head_weight)
        linear = self._linear([model.head_weight], [None])
        self._head = _Head(self._norm(model.norm), linear, model.config.logits_scaling)

    def __call__(self, residual: Tensor) -> Tensor:
        logits = residual.new_empty(len(residual), self._vocab_size)
        self._call(self._head, residual, logits.data_ptr())
        return logits


_KINDS: dict[type, type[Mamba2Layer | AttentionLayer | MLPLayer]] = {
    Mamba2: Mamba2Layer,
    Attention: AttentionLayer,
    MLP: MLPLayer,
}


@cache
def _library() -> ctypes.CDLL | None:
    library = load("decoding", Path(__file__).with_name("c"), _ARGUMENTS)
    for name, arguments in _ARGUMENTS.items() if library else ():
        function = getattr(library, name)
        function.argtypes, function.restype = (_POINTER, _SIZE, _POINTER, *arguments, _INT), _INT
    return library


def lies_plainly(tensor: Tensor) -> bool:
    """Whether C can read the tensor where it is."""
    return tensor.dtype is torch.float32 and tensor.is_cpu and type(tensor) in _PLAIN


def _whole(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor, or a contiguous copy in fp32."""
    if tensor.shape != shape:
        raise ValueError(f"the state is {tuple(tensor.shape)}: expected {shape}")
    if tensor.dtype is torch.float32 and tensor.is_contiguous() and tensor.is_cpu:
        return tensor
    return tensor.to("cpu", torch.float32).contiguous()
