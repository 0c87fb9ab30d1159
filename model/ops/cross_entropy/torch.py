"""Cross-entropy of a linear head over blocks of rows, so that the logits of one block exist at a time."""

import torch
from torch import Tensor

from model.ops._common import compute_dtype, full_precision

IGNORED = -100
"""Target that counts for nothing."""

ROWS = 256
"""Of a block: each reads the weights again, and with more, logits of a small vocabulary leave the cache."""

LOGITS_PER_BLOCK = 2**24
"""Held at most: 64 MiB in fp32, and their probabilities."""


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
        d_hidden = torch.empty_like(hidden) if with_gradients else hidden.new_empty(0)
        d_weight = torch.zeros_like(weight, dtype=dtype) if with_gradients else hidden.new_empty(0, dtype=dtype)
        rows = max(1, min(ROWS, LOGITS_PER_BLOCK // weight.shape[0], hidden.shape[0]))
        logits = hidden.new_empty(rows, weight.shape[0])
        probs = torch.empty_like(logits, dtype=dtype)
        for start in range(0, hidden.shape[0], rows):
            block = slice(start, min(start + rows, hidden.shape[0]))
            logits, probs = logits[: block.stop - start], probs[: block.stop - start]
            torch.mm(hidden[block], weight.t(), out=logits)
            largest = logits.amax(1, keepdim=True).to(dtype)
            target = logits.gather(1, index[block]).to(dtype)
            torch.softmax(logits, 1, dtype=dtype, out=probs)
            log_prob = target - largest + probs.amax(1, keepdim=True).log_()  # the target's own may be too small for it
            loss -= (log_prob * counted[block]).sum()
            if with_gradients:
                d_logits = probs.scatter_(1, index[block], log_prob.expm1())
                d_logits = d_logits if dtype == hidden.dtype else logits.copy_(d_logits)
                torch.mm(d_logits, weight, out=d_hidden[block]).mul_(counted[block])
                add_product(d_weight, d_logits, hidden[block] * counted[block])
        return loss, d_hidden, d_weight


def add_product(total: Tensor, a: Tensor, b: Tensor, beta: float = 1.0) -> None:
    """total = beta total + a^T b, the sum in total's precision."""
    if total.dtype == a.dtype:
        total.addmm_(a.t(), b, beta=beta)
    elif total.is_cuda:
        torch.addmm(total, a.t(), b, out_dtype=total.dtype, beta=beta, out=total)
    elif beta:
        total += a.t() @ b
    else:
        total.copy_(a.t() @ b)
