"""Cross-entropy of a linear head over blocks of rows, so that the logits of one block exist at a time."""

import torch
from torch import Tensor

from model.ops._common import compute_dtype, full_precision

IGNORED = -100
"""Target that counts for nothing."""

ROWS = 256
"""Of a block: each reads the weights again, and with more, logits of a small vocabulary leave the cache."""

LOGITS_PER_BLOCK = 2**24
"""Held at most: 64 MiB in fp32."""

LOGITS_AT_ONCE = 2**20
"""On a CPU, that become probabilities and gradients together, in its cache."""

WEIGHTS_AT_ONCE = 2**21
"""On a CPU, whose gradients are made in less than fp32 and added to the sum together, in its cache."""


def forward(hidden: Tensor, weight: Tensor, targets: Tensor, with_gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the summed loss and, if asked, its gradients of hidden and weight (else empty tensors).

    The gradients are made here, while a block's logits exist, and cost no second product with the head. They
    are of the sum, not of the mean, so that fp16 does not underflow before the loss scale reaches them.
    """
    with full_precision(hidden):
        dtype = compute_dtype(hidden)
        counted = (targets != IGNORED).unsqueeze(1)
        index = targets.unsqueeze(1).masked_fill(~counted, 0)
        loss = torch.zeros((), dtype=dtype, device=hidden.device)
        d_hidden = hidden.new_empty(hidden.shape if with_gradients else 0)
        d_weight = hidden.new_zeros(weight.shape if with_gradients else 0, dtype=dtype)
        rows = max(1, min(ROWS, LOGITS_PER_BLOCK // weight.shape[0], hidden.shape[0]))
        at_once = rows if hidden.is_cuda else max(1, LOGITS_AT_ONCE // weight.shape[0])
        logits = hidden.new_empty(rows, weight.shape[0])
        probs = torch.empty_like(logits[:at_once], dtype=dtype)
        for start in range(0, hidden.shape[0], rows):
            block = slice(start, min(start + rows, hidden.shape[0]))
            logits = logits[: block.stop - start]
            torch.mm(hidden[block], weight.t(), out=logits)
            parts = (tensor.split(at_once) for tensor in (logits, index[block], counted[block]))
            for some, their_index, count in zip(*parts, strict=True):
                loss += _loss(some, their_index, count, probs, with_gradients)
            if with_gradients:
                torch.mm(logits, weight, out=d_hidden[block]).mul_(counted[block])
                add_product(d_weight, logits, hidden[block] * counted[block])
        return loss, d_hidden, d_weight


def _loss(logits: Tensor, index: Tensor, counted: Tensor, probs: Tensor, with_gradients: bool) -> Tensor:
    """Summed over some rows, whose logits become, if asked, their gradients (those of rows that do not count too)."""
    probs = probs[: logits.shape[0]]
    largest = logits.amax(1, keepdim=True).to(probs.dtype)
    target = logits.gather(1, index).to(probs.dtype)
    torch.softmax(logits, 1, dtype=probs.dtype, out=probs)
    log_prob = target - largest + probs.amax(1, keepdim=True).log_()  # the target's own may be too small for it
    if with_gradients:
        logits.copy_(probs.scatter_(1, index, log_prob.expm1()))
    return -log_prob.masked_fill(~counted, 0.0).sum()  # also what is not finite does not count


def add_product(total: Tensor, a: Tensor, b: Tensor, fresh: bool = False) -> None:
    """total (or, if `fresh`, zero) + a^T b, in place of total, the sum in total's precision."""
    beta = 0.0 if fresh else 1.0
    if total.dtype == a.dtype:
        total.addmm_(a.t(), b, beta=beta)
    elif total.is_cuda:
        torch.addmm(total, a.t(), b, out_dtype=total.dtype, beta=beta, out=total)
    else:
        rows = max(1, WEIGHTS_AT_ONCE // max(1, b.shape[1]))
        for part, of_part in zip(total.split(rows), a.split(rows, 1), strict=True):
            product = of_part.t() @ b
            torch.add(product, 0 if fresh else part, out=part)
