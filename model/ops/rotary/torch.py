"""The rotation in x's own precision, as transformers has it."""

import torch
from torch import Tensor


def forward(x: Tensor, cos: Tensor, sin: Tensor, inverse: bool = False) -> Tensor:
    """Return (b, h, l, p) in x's dtype; with `inverse`, rotated back."""
    half = cos.shape[-1]
    cos, sin = cos.to(x.dtype), (-sin if inverse else sin).to(x.dtype)
    if cos.dim() == 3:
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)
