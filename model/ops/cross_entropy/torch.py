"""Cross-entropy of a linear head over blocks of rows, so that the logits of one block exist at a time."""

import torch
from torch import Tensor

from model.ops._common import compute_dtype, full_precision

IGNORED = -100
"""Target that counts for nothing."""

LOGITS_PER_BLOCK = 2**22
"""Logits held at once: 16 MiB in fp32."""


def forward(hidden: Tensor, weight: Tensor, targets: Tensor, with_gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the summed loss and, if asked, its gradients of hidden and weight (else empty tensors).

    The gradients are made here, while a block's logits exist, and cost no second product with the head. They
    are of the sum, not of the mean, so that fp16 does not underflow before the loss scale reaches them.
    """
    with full_precision(hidden):
        dtype = compute_dtype(hidden)
        counted = targets != IGNORED
        index = targets.masked_fill(~counted, 0).unsqueeze(1)
        loss = torch.zeros((), dtype=dtype, device=hidden.device)
        d_hidden = torch.empty_like(hidden) if with_gradients else hidden.new_empty(0)
        d_weight = torch.zeros_like(weight, dtype=dtype) if with_gradients else hidden.new_empty(0, dtype=dtype)
        rows = max(1, LOGITS_PER_BLOCK // weight.shape[0])
        for start in range(0, hidden.shape[0], rows):
            block = slice(start, start + rows)
            log_probs = (hidden[block] @ weight.t()).to(dtype).log_softmax(-1)
            loss -= log_probs.gather(1, index[block]).mul_(counted[block].unsqueeze(1)).sum()
            if with_gradients:
                d_logits = log_probs.exp_()
                d_logits.scatter_add_(1, index[block], torch.full_like(index[block], -1, dtype=dtype))
                d_logits = d_logits.mul_(counted[block].unsqueeze(1)).to(hidden.dtype)
                torch.mm(d_logits, weight, out=d_hidden[block])
                d_weight += d_logits.t() @ hidden[block]
        return loss, d_hidden, d_weight
