"""How much memory a model takes, without allocating any: parameters, training, decoding."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from model.checkpoints import megatron
from model.checkpoints.keymap import entries_of
from model.config import HybridConfig
from model.hybrid import HybridLM
from model.state import AttentionState

PARTS = {"M": "Mamba2", "*": "attention", "-": "MLP"}


def on_meta(config: HybridConfig, dtype: torch.dtype = torch.float32) -> HybridLM:
    """The model without memory for its parameters."""
    with torch.device("meta"):
        return HybridLM(config).to(dtype)


def parameters_by_part(model: HybridLM) -> dict[str, int]:
    """How many parameters the embedding, the layers of each kind with their norms, the last norm and the head have."""
    found: Counter[str] = Counter()
    found["embedding"] = model.embedding.weight.numel()
    for symbol, block in zip(model.config.layers, model.layers, strict=True):
        found[f"{PARTS[symbol]} x {model.config.layers.count(symbol)}"] += sum(p.numel() for p in block.parameters())
    found["norm"] = model.norm.weight.numel()
    if model.head is not None:
        found["head"] = model.head.weight.numel()
    return dict(found)


def parameters_per_rank(model: HybridLM, tensor_parallel: int) -> int:
    """Parameters on one of so many tensor-parallel ranks: each has a share of most, and all of the norms.

    Raises:
        ValueError: the groups, heads or rows cannot be shared so.
    """
    config = model.config
    shared = {"vocab_size": config.vocab_size}
    shared |= {"n_groups": config.n_groups, "nheads": config.nheads} if "M" in config.layers else {}
    shared |= {"n_kv_heads": config.n_kv_heads} if "*" in config.layers else {}
    shared |= {"d_ff": config.d_ff} if "-" in config.layers else {}
    for name, size in shared.items():
        if size % tensor_parallel:
            raise ValueError(f"{name} is {size}, which {tensor_parallel} tensor-parallel ranks cannot share")
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    whole = sum(
        sizes[name]
        for entry in entries_of(model, megatron.FORMAT.entries(model))
        if entry.split is None
        for name in entry.parameters
    )
    return whole + (sum(sizes.values()) - whole) // tensor_parallel


@dataclass(frozen=True)
class Activations:
    """Bytes that a training step keeps between forward and backward."""

    layers: int
    """Of all layers, nothing recomputed."""
    largest_layer: int
    inputs: int
    """Of the layers' inputs alone."""
    head: int
    """Of the last norm, the head and the loss."""

    @property
    def recompute_none(self) -> int:
        """Everything is kept."""
        return self.layers + self.head

    @property
    def recompute_full(self) -> int:
        """Each layer's input is kept; the rest of one layer at a time is computed again."""
        return self.inputs + self.largest_layer + self.head


def activations(config: HybridConfig, batch: int, seqlen: int, dtype: torch.dtype) -> Activations:
    """What autograd keeps of a step of (batch, seqlen) tokens, found by running one layer of each kind.

    Args:
        dtype: of the weights, and so of the activations; the residual stream's is as the configuration has it.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # fake parameters cannot be cast
    try:
        with FakeTensorMode():  # nothing is computed, and nothing allocated
            return _measure(HybridLM(config), torch.zeros(batch, seqlen, dtype=torch.int64))
    finally:
        torch.set_default_dtype(before)


def _measure(model: HybridLM, ids: Tensor) -> Activations:
    config = model.config
    residual = model.embed(ids).detach().requires_grad_()
    mixed = torch.empty_like(residual, dtype=model.norm.weight.dtype, requires_grad=True)
    input_bytes = residual.nbytes + mixed.nbytes
    by_kind: dict[str, int] = {}
    for symbol, block in zip(config.layers, model.layers, strict=True):
        if symbol not in by_kind:
            with kept_by_autograd(model) as kept:
                block(residual, mixed)
            by_kind[symbol] = sum(kept.values())
    with kept_by_autograd(model) as kept:
        _, hidden = model.norm(residual, mixed)
        model.loss(hidden, ids, None)
    return Activations(
        layers=sum(by_kind[symbol] for symbol in config.layers),
        largest_layer=max(by_kind.values()),
        inputs=config.n_layers * input_bytes - mixed.nbytes,  # the first has nothing to add
        head=sum(kept.values()),
    )


@contextmanager
def kept_by_autograd(model: HybridLM) -> Iterator[dict[int, int]]:
    """Collects the bytes of each memory that autograd keeps in the block, the parameters' aside."""
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # else a memory that is freed could be counted as the one that takes its place

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept


def decoding_bytes(config: HybridConfig, batch: int, context: int, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes of the constant state of the Mamba2 layers, and of the keys and values of `context` positions."""
    state = on_meta(config, dtype).new_state(batch)
    constant, cache = 0, 0
    for layer in state.layers:
        if isinstance(layer, AttentionState):
            heads = layer.buffer.shape[2] * layer.buffer.shape[4]
            cache += 2 * batch * context * heads * layer.buffer.element_size()
        elif layer is not None:
            constant += sum(tensor.numel() * tensor.element_size() for tensor in layer)
    return constant, cache
