"""The causal depthwise convolution in Triton: one launch in each direction, and no atomic additions.

A program goes through its positions in order, so that every element is read and converted once, but for the few where
two programs meet. The backward recomputes the pre-activation; what each program adds up for the weight and the bias is
summed by torch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.ops._launch import power_of_2
from model.ops.causal_conv1d.triton.kernels import backward_kernel, forward_kernel

PROGRAMS = 1024
"""That a launch should have, where the sequence is long enough: a constant, since the sums' order depends on it."""

LEAST_ROWS, MOST_ROWS = 32, 256
"""That a program goes through, powers of two."""


class Tile(NamedTuple):
    """Channels of a program at most, and of each of its warps; rows that are loaded at once."""

    channels: int
    per_warp: int
    block: int

    def of(self, x: Tensor) -> tuple[int, int, int]:
        """Channels, rows and warps of a program: a function of the shape alone, so that results are."""
        batch, seqlen, channels = x.shape
        width = min(self.channels, max(self.per_warp, power_of_2(channels)))
        share = batch * seqlen * -(-channels // width) // PROGRAMS
        rows = 1 << max(share, 1).bit_length() - 1
        return width, min(MOST_ROWS, max(LEAST_ROWS, rows)), width // self.per_warp


FORWARD, BACKWARD = Tile(512, 128, 8), Tile(256, 64, 4)
"""The backward keeps more in registers."""


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
) -> Tensor:
    """Return y (b, l, d) in x's dtype."""
    x, y = x.contiguous(), x.new_empty(x.shape)
    (batch, seqlen, channels), (C, rows, warps) = x.shape, FORWARD.of(x)
    grid = (-(-channels // C), -(-seqlen // rows), batch)
    with torch.cuda.device_of(x):
        forward_kernel[grid](
            *_given(x, weight, bias, initial_state, seq_idx), y, seqlen, channels, rows,
            C=C, R=FORWARD.block, num_warps=warps, **_options(weight, bias, initial_state, seq_idx, activation),
        )  # fmt: skip
    return y


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and initial_state (empty without one)."""
    x, grad_y, dx = x.contiguous(), grad_y.contiguous(), x.new_empty(x.shape)
    d_before = x.new_empty(0) if initial_state is None else initial_state.new_empty(initial_state.shape)
    (batch, seqlen, channels), width = x.shape, weight.shape[1]
    C, steps, warps = BACKWARD.of(x)
    rows = steps - (width - 1)
    grid = (-(-channels // C), -(-seqlen // rows), batch)
    parts = x.new_empty((batch * grid[1], width + 1, channels), dtype=torch.float32)
    with torch.cuda.device_of(x):
        backward_kernel[grid](
            grad_y, *_given(x, weight, bias, initial_state, seq_idx), dx, d_before, parts, seqlen, channels, rows,
            C=C, R=BACKWARD.block, num_warps=warps, **_options(weight, bias, initial_state, seq_idx, activation),
        )  # fmt: skip
    sums = parts.sum(0)
    d_weight, d_bias = sums[:-1].t().to(weight.dtype).contiguous(), sums[-1].to(weight.dtype, copy=True)
    return dx, d_weight, d_bias, d_before


def _given(x: Tensor, weight: Tensor, *others: Tensor | None) -> tuple[Tensor, ...]:
    """Arguments of a kernel; any where there is none, since it is not looked at."""
    return x, weight.contiguous(), *(x if other is None else other.contiguous() for other in others)


def _options(
    weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, seq_idx: Tensor | None, activation: str | None
) -> dict[str, int]:
    return {
        "W": weight.shape[1],
        "SILU": activation == "silu",
        "BIAS": bias is not None,
        "START": initial_state is not None,
        "DOCUMENTS": seq_idx is not None,
    }
