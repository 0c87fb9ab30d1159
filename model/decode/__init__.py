"""Token-by-token decoding: the model's layers in the fewest passes over weights and states.

One row through a matrix is a stream over its weights. They are read where they are: on a GPU in Triton, the whole step
a CUDA graph (graph.py, triton/), in fp32 on a CPU in C (native.py). Elsewhere torch does it (plain.py), on a second
copy of the weights that is laid out for it.
"""

import os
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor

from model.decode import native, plain
from model.hybrid import Block, HybridLM
from model.ops._common import VARIABLE, runs_triton
from model.state import LayerState

if TYPE_CHECKING:
    from model.decode.graph import Graphed

__all__ = ["Decoder"]


class Decoder:
    """A model that goes on from a state one token at a time, without gradients.

    Some of what it holds are copies: make a new decoder when the model's weights have changed.
    """

    def __init__(self, model: HybridLM, *, backend: Literal["auto", "torch", "native", "triton"] = "auto") -> None:
        """`backend`: "torch"; "native", in C, for models in fp32 on a CPU; "triton", on a GPU; "auto" takes these where
        it can, but not Triton where the environment's MAMBA2_BACKEND is "torch".

        Raises:
            ValueError: no such backend, or "native" or "triton" is asked for and cannot be had.
        """
        if backend not in ("auto", "torch", "native", "triton"):
            raise ValueError(f"backend is {backend!r}: choose 'auto', 'torch', 'native' or 'triton'")
        self.model = model
        self._graphed = _graphed(model, backend)
        if self._graphed is not None:
            return
        if backend == "triton":
            raise ValueError(
                "backend is 'triton': it needs plain weights in fp32, bf16 or fp16 on a GPU of Ampere or later"
            )
        in_c = backend != "torch" and native.lies_plainly(model.embedding.weight)
        with torch.no_grad():
            blocks = [cast(Block, block) for block in model.layers]
            layers = [(in_c and native.layer(block)) or plain.Layer(block) for block in blocks]
            head = (in_c and native.head(model)) or plain.Head(model)
        if backend == "native" and any(isinstance(part, plain.Layer | plain.Head) for part in (*layers, head)):
            raise ValueError("backend is 'native': it needs a C compiler and plain weights, in fp32 on a CPU")
        self._layers, self._head = layers, head

    @torch.no_grad()
    def step(self, tokens: Tensor, states: list[LayerState]) -> Tensor:
        """Take one more token per row, (batch,) int64, and return the next token's logits, (batch, vocab_size).

        Args:
            states: each layer's state; brought forward in place.
        """
        if tokens.dim() != 1:
            raise ValueError(f"tokens is {tuple(tokens.shape)}: it must be (batch,)")
        if self._graphed is not None:
            return self._graphed.step(tokens, states)
        residual = self.model.embed(tokens)
        for i, layer in enumerate(self._layers):
            residual, states[i] = layer(residual, states[i])
        return self._head(residual)


def _graphed(model: HybridLM, backend: str) -> "Graphed | None":
    """The model in Triton, where it is asked for and takes it; without insisting, where it is found to work."""
    weight = model.embedding.weight
    insists = backend == "triton"
    wanted = os.environ.get(VARIABLE, "auto") in ("auto", "triton")
    asked = insists or (backend == "auto" and weight.is_cuda and wanted)
    if not asked or not runs_triton(weight):
        return None
    from model.decode import graph, selfcheck, triton  # only a machine with a GPU needs Triton

    return graph.Graphed(model) if triton.takes(model) and (insists or selfcheck.passes(model)) else None
