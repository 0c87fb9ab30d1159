"""The product in C (rows.c)."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.ops._native import INT, POINTER, SIZE, address, load

ARGUMENTS = (SIZE, SIZE, INT, POINTER, POINTER, POINTER, POINTER, POINTER, POINTER, INT)
"""Rows, in, parts; outs, weights, biases of the parts; x, room, y; threads."""
GROUP = 16
"""Rows that are multiplied at once, as in rows.c."""


@cache
def kernel() -> Callable[..., None] | None:
    """`row_linear` of rows.c; None where it cannot be had."""
    return load(Path(__file__).with_name("rows.c"), "row_linear", ARGUMENTS)


class Rows:
    """Weights (out, in) in fp32, not copied."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        self._weights = [weight.detach().contiguous() for weight in weights]
        self._biases = [None if bias is None else bias.detach().contiguous() for bias in biases]
        outs = [len(weight) for weight in self._weights]
        self._out, self._in = sum(outs), self._weights[0].shape[1]
        addresses = POINTER * len(outs)
        self._parts = (
            len(outs),
            (SIZE * len(outs))(*outs),
            addresses(*map(address, self._weights)),
            addresses(*map(address, self._biases)),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)."""
        function = kernel()
        assert function is not None
        if x.dtype is not torch.float32 or x.device.type != "cpu" or x.dim() != 2 or x.shape[1] != self._in:
            raise ValueError(f"x is {tuple(x.shape)} in {x.dtype} on {x.device}: it must be (rows, {self._in}) in fp32")
        x = x.contiguous()
        y = x.new_empty(x.shape[0], self._out)
        room = x.new_empty(GROUP * self._in) if len(x) > 2 else y
        function(
            *(x.shape[0], self._in, *self._parts),
            *(x.data_ptr(), room.data_ptr(), y.data_ptr(), torch.get_num_threads()),
        )
        return y
