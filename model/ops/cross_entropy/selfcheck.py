"""A small input for the cross-entropy's kernel, and torch's results in fp64."""

from functools import cache

import torch

from model.ops._selfcheck import Pair, trusted
from model.ops.cross_entropy.torch import IGNORED, forward

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.03, torch.float16: 0.005}
"""Largest difference, relative to the largest value, that rounding explains (of fp32, to products in tf32)."""


@torch.compiler.assume_constant_result
def passes(device: str, dtype: torch.dtype) -> bool:
    """Compare the loss and its gradients on a small input, once per process, device and dtype."""
    return _passes(device, dtype)


@cache
def _passes(device: str, dtype: torch.dtype) -> bool:
    return trusted(
        f"the cross-entropy's kernel for {dtype} on {device}", lambda: _compare(device, dtype), TOLERANCE[dtype]
    )


def _compare(device: str, dtype: torch.dtype) -> Pair:
    from model.ops.cross_entropy import triton

    make = torch.Generator().manual_seed(0)
    rows, vocab = triton.ROWS + 3, triton.TILE + 37  # two blocks of rows, two tiles of a row
    hidden = torch.randn(rows, 64, generator=make).to(device, dtype)
    weight = (torch.randn(vocab, 64, generator=make) / 4).to(device, dtype)
    targets = torch.randint(0, vocab, (rows,), generator=make).to(device)
    targets[torch.arange(rows) % 5 > 0] = IGNORED
    with torch.no_grad():
        ours = triton.forward(hidden, weight, targets, True, logits_per_block=triton.ROWS * vocab)
        return ours, forward(hidden.double(), weight.double(), targets, True)
