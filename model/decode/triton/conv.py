"""The convolutions of x, B and C at one position: the last inputs are brought forward as they are read."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops._launch import Launched

BLOCK = 256
"""Channels of a program."""


@Launched
@triton.jit
def conv_kernel(
    x, state, taps, bias, y, x_stride, channels: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    BIAS: tl.constexpr,
):  # fmt: skip
    """Some channels of one row, and SiLU."""
    at, row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    inside = at < channels
    new = tl.load(x + row * x_stride + at, mask=inside, other=0.0)
    out = new.to(tl.float32) * tl.load(taps + (WIDTH - 1) * channels + at, mask=inside, other=0.0).to(tl.float32)
    place = state + row.to(tl.int64) * ((WIDTH - 1) * channels) + at
    for i in tl.static_range(WIDTH - 1):
        old = tl.load(place + i * channels, mask=inside, other=0.0)
        out += old.to(tl.float32) * tl.load(taps + i * channels + at, mask=inside, other=0.0).to(tl.float32)
        if i > 0:
            tl.store(place + (i - 1) * channels, old, mask=inside)
    tl.store(place + (WIDTH - 2) * channels, new.to(state.dtype.element_ty), mask=inside)
    if BIAS:
        out += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * channels + at, (out / (1 + tl.exp(-out))).to(y.dtype.element_ty), mask=inside)


class Conv:
    """Three convolutions as one, with their SiLU."""

    def __init__(self, taps: Tensor, bias: Tensor | None) -> None:
        """`taps`: (channels, width)."""
        self._taps, self._bias = taps.detach().t().contiguous(), None if bias is None else bias.detach()

    def __call__(self, x: Tensor, state: Tensor) -> Tensor:
        """x (rows, channels), contiguous along the channels; state (rows, width - 1, channels) is changed in place."""
        rows, channels = x.shape
        y = torch.empty((rows, channels), dtype=x.dtype, device=x.device)
        conv_kernel[(-(-channels // BLOCK), rows)](
            *(x, state, self._taps, self._taps if self._bias is None else self._bias, y, x.stride(0)),
            *(channels, len(self._taps), BLOCK, self._bias is not None),
            num_warps=2,
        )
        return y
