"""A small input for the cross-entropy's kernels, and torch's results in fp64."""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from model.ops._selfcheck import Pair, constant, trusted
from model.ops.cross_entropy.torch import IGNORED, forward

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.03, torch.float16: 0.005}
"""Largest difference, relative to the largest value, that rounding explains (of fp32, to products in tf32)."""


@constant
def passes(device: str, dtype: torch.dtype) -> bool:
    """Compare the loss and its gradients on a small input, once per process, device and dtype."""
    return _passes(device, dtype)


@cache
def _passes(device: str, dtype: torch.dtype) -> bool:
    from model.ops.cross_entropy import triton

    rows, vocab = triton.ROWS + 3, triton.TILE + 37  # two blocks of rows, two tiles of a row
    run = partial(triton.forward, logits_per_block=triton.ROWS * vocab)
    kernel = f"the cross-entropy's kernel for {dtype} on {device}"
    return trusted(kernel, lambda: compare(run, device, dtype, rows, vocab), TOLERANCE[dtype])


def compare(run: Callable[..., tuple[Tensor, ...]], device: str, dtype: torch.dtype, rows: int, vocab: int) -> Pair:
    """What a path's `forward` makes of a small input, and what torch makes of it."""
    make = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, 64, generator=make).to(device, dtype)
    weight = (torch.randn(vocab, 64, generator=make) / 4).to(device, dtype)
    targets = torch.randint(0, vocab, (rows,), generator=make).to(device)
    targets[torch.arange(rows) % 5 > 0] = IGNORED
    with torch.no_grad():
        return run(hidden, weight, targets, True), forward(hidden.double(), weight.double(), targets, True)
