"""The rotation in Triton: one launch, every element read and written once, in whatever order x lies in memory.

In fp32 from the angles to the result, which is rounded once; the torch path rounds after every operation.
"""

import torch
from torch import Tensor

from model.ops._launch import power_of_2
from model.ops.rotary.triton.kernels import rotary_kernel

PAIRS = 2048
"""Rotated by a program."""

HEADS = 8
"""Of a program at most: they share its angles."""

WARPS = 4


def sizes(heads: int, head_dim: int, half: int) -> dict[str, int]:
    """Of a tile."""
    rest = head_dim - 2 * half
    P, H = power_of_2(half), min(HEADS, power_of_2(heads))
    REST = power_of_2(rest) if rest else 1
    return {"half": half, "rest": rest, "P": P, "REST": REST, "H": H, "T": max(1, PAIRS // (max(P, REST // 2) * H))}


def forward(x: Tensor, cos: Tensor, sin: Tensor, inverse: bool = False) -> Tensor:
    """Return (b, h, l, p) in x's dtype and, where it has no gaps, its order in memory; with `inverse`, rotated back."""
    batch, heads, seqlen, head_dim = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    y, cos, sin = torch.empty_like(x), cos.contiguous(), sin.contiguous()
    tile = sizes(heads, head_dim, cos.shape[-1])
    grid = (-(-seqlen // tile["T"]) * -(-heads // tile["H"]), batch)
    with torch.cuda.device_of(x):
        rotary_kernel[grid](
            *(x, cos, sin, y, seqlen, heads, cos.stride(0) if cos.dim() == 3 else 0),
            *(*x.stride()[:3], *y.stride()[:3]),
            INVERSE=inverse, num_warps=WARPS, **tile,
        )  # fmt: skip
    return y
