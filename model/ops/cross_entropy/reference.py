"""The linear cross-entropy by its definition: all logits at once, fp64, plain autograd."""

import torch.nn.functional as F
from torch import Tensor

from model.ops.cross_entropy.torch import IGNORED


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the scalar loss in fp64."""
    logits = hidden.double() @ weight.double().t()
    total = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)
