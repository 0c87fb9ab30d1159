"""What every operator shares: compute precision, backends, and argument checks."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["auto", "torch", "reference"]


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """fp64 for fp64 inputs and fp32 for everything else."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def full_precision(tensor: Tensor) -> AbstractContextManager[None]:
    """Suspend autocast on the tensor's device: an operator chooses its own precision."""
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def check_backend(backend: str) -> None:
    """Raise ValueError for a backend that no operator has."""
    if backend not in ("auto", "torch", "reference"):
        raise ValueError(f"backend is {backend!r}: choose 'auto', 'torch' or 'reference'")


def check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    """Raise ValueError naming the argument, its shape and the expected one."""
    if tensor.shape != expected:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")
