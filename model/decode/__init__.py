"""Token-by-token decoding: the model's layers in the fewest passes over weights and states.

One row through a matrix is a stream over its weights. In fp32 on a CPU they are read where they are, in C (native.py);
elsewhere torch does it (plain.py), on a second copy of the weights that is laid out for it.
"""

from typing import Literal, cast

import torch
from torch import Tensor

from model.decode import native, plain
from model.hybrid import Block, HybridLM
from model.state import LayerState

__all__ = ["Decoder"]


class Decoder:
    """A model that goes on from a state one token at a time, without gradients.

    Some of what it holds are copies: make a new decoder when the model's weights have changed.
    """

    def __init__(self, model: HybridLM, *, backend: Literal["auto", "torch", "native"] = "auto") -> None:
        """`backend`: "torch"; "native", in C, for models in fp32 on a CPU; "auto" takes that where it can.

        Raises:
            ValueError: no such backend, or "native" is asked for and cannot be had.
        """
        if backend not in ("auto", "torch", "native"):
            raise ValueError(f"backend is {backend!r}: choose 'auto', 'torch' or 'native'")
        self.model = model
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
        residual = self.model.embed(tokens)
        for i, layer in enumerate(self._layers):
            residual, states[i] = layer(residual, states[i])
        return self._head(residual)
