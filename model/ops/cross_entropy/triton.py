"""The cross-entropy of a linear head on a GPU: cuBLAS for the three products, Triton for what is between them.

A block of rows is as many as its logits, in the inputs' dtype, have room for. A kernel reads a row of them for the
statistics of its softmax, and again, out of the cache, to put the gradient in its place.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops._common import full_precision
from model.ops._launch import Launched, power_of_2
from model.ops.cross_entropy.torch import IGNORED, add_product

LOGITS_PER_BLOCK = 2**27
"""Held at once: 256 MiB in bf16."""

ROWS = 128
"""Of which a block has a multiple: a tile of a product."""

TILE = 4096
"""Logits of a row at once."""

WARPS = 8


def forward(
    hidden: Tensor, weight: Tensor, targets: Tensor, with_gradients: bool, logits_per_block: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As torch's: the summed loss and, if asked, its gradients of hidden and weight (else empty tensors)."""
    rows, vocab = hidden.shape[0], weight.shape[0]
    blocks = -(-rows // max(1, (logits_per_block or LOGITS_PER_BLOCK) // vocab))
    size = min(rows, -(-rows // (ROWS * blocks)) * ROWS)  # equal, as far as that goes
    losses = hidden.new_empty(rows, dtype=torch.float32)
    d_hidden = (
        torch.empty_like(hidden, memory_format=torch.contiguous_format) if with_gradients else hidden.new_empty(0)
    )
    d_weight = (
        torch.empty(weight.shape, dtype=torch.float32, device=weight.device) if with_gradients else losses.new_empty(0)
    )
    width = -(-vocab // 64) * 64  # aligned rows, whatever the vocabulary
    room = hidden.new_empty(size, width)[:, :vocab]
    targets = targets.contiguous()
    options = {"TILE": min(TILE, power_of_2(vocab)), "GRADIENTS": with_gradients, "num_warps": WARPS}
    with full_precision(hidden), torch.cuda.device_of(hidden):
        for start in range(0, rows, size):
            block = slice(start, min(start + size, rows))
            logits = room[: block.stop - start]
            torch.mm(hidden[block], weight.t(), out=logits)
            loss_kernel[(len(logits),)](
                logits, targets[block], losses[block], logits.stride(0), vocab, IGNORED=IGNORED, **options
            )
            if with_gradients:
                torch.mm(logits, weight, out=d_hidden[block])
                add_product(d_weight, logits, hidden[block], fresh=start == 0)
        return losses.sum(), d_hidden, d_weight


@Launched
@triton.jit
def loss_kernel(
    logits, targets, losses, stride, vocab, IGNORED: tl.constexpr, TILE: tl.constexpr, GRADIENTS: tl.constexpr
):  # fmt: skip
    """A row's loss, and in place of its logits the gradient."""
    row = tl.program_id(0)
    place = logits + row.to(tl.int64) * stride
    columns = tl.arange(0, TILE)
    target = tl.load(targets + row)
    if target == IGNORED:
        tl.store(losses + row, 0.0)
        if GRADIENTS:
            for first in range(0, vocab, TILE):
                nothing = tl.zeros((TILE,), logits.dtype.element_ty)
                tl.store(place + first + columns, nothing, mask=first + columns < vocab)
    else:
        # Before the sums, whose barriers keep other warps from writing to it; NaN for what is no token.
        there = (target >= 0) & (target < vocab)
        own = tl.load(place + target, mask=there, other=float("nan")).to(tl.float32)
        largest = tl.full((), -3.4e38, tl.float32)
        sums = tl.zeros((TILE,), tl.float32)
        for first in range(0, vocab, TILE):
            inside = first + columns < vocab
            values = tl.load(place + first + columns, mask=inside, other=float("-inf")).to(tl.float32)
            larger = tl.maximum(largest, tl.max(values, 0))
            sums = sums * tl.exp(largest - larger) + tl.exp(values - larger)
            largest = larger
        total = tl.sum(sums, 0)
        tl.store(losses + row, tl.log(total) + (largest - own))
        if GRADIENTS:
            for first in range(0, vocab, TILE):
                inside = first + columns < vocab
                values = tl.load(place + first + columns, mask=inside, other=float("-inf")).to(tl.float32)
                gradient = tl.exp(values - largest) / total - tl.where(first + columns == target, 1.0, 0.0)
                tl.store(place + first + columns, gradient.to(logits.dtype.element_ty), mask=inside)
