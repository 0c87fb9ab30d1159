"""The cross-entropy of a linear head on a CPU: torch's three products, C for what is between them."""

import ctypes
from functools import cache, partial

import torch
from torch import Tensor

from model.ops._common import full_precision
from model.ops._native import INT, POINTER, SIZE, Works, address, empty, functions
from model.ops._selfcheck import trusted
from model.ops.cross_entropy import selfcheck
from model.ops.cross_entropy.torch import IGNORED, add_product

ROWS = {torch.float32: 256, torch.bfloat16: 512}
"""Of a block at most: each reads the weights again and adds to their gradient."""

BYTES_PER_BLOCK = 2**26
"""Of logits at most."""

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03}
"""Largest difference from torch, relative to the largest value, that rounding explains on a small input."""


@cache
def _library() -> ctypes.CDLL | None:
    arguments = [SIZE, SIZE, POINTER, INT, POINTER, INT, POINTER, POINTER, INT]
    return functions("cross-entropy", __file__, {"cross_entropy": arguments})


@Works
def works() -> bool:
    """Whether C does on a small input what torch does."""
    return _library() is not None and all(
        trusted("the cross-entropy's C function", partial(selfcheck.compare, forward, "cpu", dtype, 20, 100), tolerance)
        for dtype, tolerance in TOLERANCE.items()
    )


def forward(hidden: Tensor, weight: Tensor, targets: Tensor, with_gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    """As torch's: the summed loss and, if asked, its gradients of hidden and weight (else empty tensors).

    Raises:
        ValueError: a target that is neither a token nor IGNORED.
    """
    rows, vocab = hidden.shape[0], weight.shape[0]
    ignored = targets == IGNORED
    if bool(((targets < 0) | (targets >= vocab)).logical_and_(~ignored).any()):
        raise ValueError(f"targets hold token ids outside of the {vocab} of the head")
    targets = targets.masked_fill(ignored, -1).contiguous()
    size = max(1, min(ROWS[hidden.dtype], BYTES_PER_BLOCK // (vocab * hidden.dtype.itemsize), rows))
    threads = torch.get_num_threads()
    losses, rooms, logits = empty(size), empty(threads, vocab), hidden.new_empty(size, vocab)
    d_hidden = hidden.new_empty(hidden.shape if with_gradients else 0)
    d_weight = empty(*(weight.shape if with_gradients else (0,)))
    loss = hidden.new_zeros((), dtype=torch.float32)
    with full_precision(hidden):
        for start in range(0, rows, size):
            block = slice(start, min(start + size, rows))
            logits = logits[: block.stop - start]
            torch.mm(hidden[block], weight.t(), out=logits)
            _losses(logits, targets[block], with_gradients, losses[: len(logits)], rooms)
            loss += losses[: len(logits)].sum()  # so few that torch takes one thread
            if with_gradients:
                torch.mm(logits, weight, out=d_hidden[block])
                add_product(d_weight, logits, hidden[block], fresh=start == 0)
    return loss, d_hidden, d_weight


def _losses(logits: Tensor, targets: Tensor, gradients: bool, losses: Tensor, rooms: Tensor) -> None:
    """Write the losses of rows of logits, which become, if asked, their gradients."""
    library = _library()
    assert library is not None
    half = logits.dtype == torch.bfloat16
    where = (address(logits), half, address(targets), gradients, address(losses), address(rooms))
    library.cross_entropy(*logits.shape, *where, len(rooms))
