"""The rotation as a product of complex numbers, fp64, plain autograd."""

import torch
from torch import Tensor


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return (batch, heads, seqlen, head_dim) in fp64."""
    half = cos.shape[-1]
    first, second, rest = x.double().split([half, half, x.shape[-1] - 2 * half], dim=-1)
    factor = torch.complex(cos.double(), sin.double())
    rotated = torch.complex(first, second) * (factor.unsqueeze(1) if factor.dim() == 3 else factor)
    return torch.cat([rotated.real, rotated.imag, rest], dim=-1)
