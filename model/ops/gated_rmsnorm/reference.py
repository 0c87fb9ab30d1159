"""The gated RMSNorm by its definition, fp64, plain autograd."""

import torch
import torch.nn.functional as F
from torch import Tensor


def gated_rmsnorm(
    x: Tensor, weight: Tensor, gate: Tensor | None, eps: float, group_size: int, norm_before_gate: bool
) -> Tensor:
    """Return (..., d) in fp64."""
    x, weight = x.double(), weight.double()
    gate_value = None if gate is None else F.silu(gate.double())
    if gate_value is not None and not norm_before_gate:
        x = x * gate_value
    groups = x.unflatten(-1, (-1, group_size))
    normed = groups * torch.rsqrt(groups.square().mean(-1, keepdim=True) + eps)
    y = normed.flatten(-2) * weight
    return y * gate_value if gate_value is not None and norm_before_gate else y
