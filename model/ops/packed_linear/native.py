"""The product in C (panels.c): the matrix in panels (out / width, in, width), a panel's columns side by side."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.ops._native import INT, POINTER, SIZE, address, load

ARGUMENTS = (SIZE, SIZE, SIZE, POINTER, POINTER, POINTER, POINTER, INT)
"""Rows, in, out; x, panels, biases, y; threads."""

WIDTH = 16
"""Columns of a panel, as in panels.c."""


@cache
def kernel() -> Callable[..., None] | None:
    """`panels_times` of panels.c; None where it cannot be had."""
    return load(Path(__file__).with_name("panels.c"), "panels_times", ARGUMENTS)


class Panels:
    """Copies of weights (out, in) in fp32, one after another."""

    def __init__(self, weights: Sequence[Tensor], bias: Tensor | None) -> None:
        weight = (weights[0] if len(weights) == 1 else torch.cat(list(weights))).detach()
        self._outs, self._ins = weight.shape
        full, rest = divmod(self._outs, WIDTH)
        self._panels = torch.zeros(full + bool(rest), self._ins, WIDTH)
        self._panels[:full] = weight[: full * WIDTH].view(full, WIDTH, -1).transpose(1, 2)
        if rest:
            self._panels[full, :, :rest] = weight[full * WIDTH :].t()
        self._bias = None
        if bias is not None:
            self._bias = torch.zeros(len(self._panels) * WIDTH)
            self._bias[: self._outs] = bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)."""
        function = kernel()
        assert function is not None
        assert x.dtype is torch.float32, x.dtype
        x = x.contiguous()
        y = torch.empty(x.shape[0], self._outs)
        function(
            *(x.shape[0], self._ins, self._outs),
            *(x.data_ptr(), self._panels.data_ptr(), address(self._bias), y.data_ptr()),
            torch.get_num_threads(),
        )
        return y
