"""What every operator shares: compute precision, the choice of a path, and argument checks."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from model.ops._selfcheck import constant

Path = Literal["triton", "native", "torch", "reference"]
Backend = Literal["auto", "triton", "native", "torch", "reference"]
VARIABLE = "MAMBA2_BACKEND"
"""Of the environment: what "auto" means."""


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """fp64 for fp64 inputs and fp32 for everything else."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def full_precision(tensor: Tensor) -> AbstractContextManager[None]:
    """Suspend autocast on the tensor's device: an operator chooses its own precision."""
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if autocasts(device) else nullcontext()


def autocasts(device: str) -> bool:
    """Whether autocast is on for a type of device; torch does not want to be asked about one that has none (meta)."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def asked(backend: str) -> str:
    """What a call's `backend` says, else what the environment's MAMBA2_BACKEND says, else "auto".

    Raises:
        ValueError: no such backend.
    """
    said = backend if backend != "auto" else os.environ.get(VARIABLE, "auto")
    if said not in get_args(Backend):
        source = "backend" if backend != "auto" else VARIABLE
        raise ValueError(f"{source} is {said!r}: choose one of {', '.join(map(repr, get_args(Backend)))}")
    return said


def chosen(backend: str, **kernels: Callable[[], bool]) -> Path:
    """The path of a call: what is `asked` for, or the fastest.

    Args:
        kernels: for "triton" and "native" (C), where an operator has them, whether they take the inputs and do what
            they should; the fastest first.

    Raises:
        ValueError: no such backend, or `backend` names kernels that cannot be had; the environment only asks for them.
    """
    said = asked(backend)
    if said in ("torch", "reference"):
        return said  # type: ignore[return-value]
    for name, takes in kernels.items():
        if said in ("auto", name) and takes():
            return name  # type: ignore[return-value]
    if backend not in ("auto", "torch"):
        raise ValueError(f"backend is {backend!r}: this operator has no such kernel for these dtypes, sizes or devices")
    return "torch"


def runs_triton(tensor: Tensor) -> bool:
    """Whether kernels run where this tensor is: on a GPU of NVIDIA's Ampere or later, or interpreted on a CPU."""
    if tensor.is_cuda:
        return _is_ampere(str(tensor.device))
    return tensor.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"


@constant
def _is_ampere(device: str) -> bool:
    return _capability(device) >= (8, 0)


_capability = cache(torch.cuda.get_device_capability)


def check_tensors(**tensors: Tensor | None) -> None:
    """Raise ValueError naming an argument that is not where the first is, or the first if its numbers are not real.

    Neither torch's dispatcher nor C looks: the one makes of a tensor on another device results that nobody has
    written, the other reads at its address. Integers would have the results rounded to theirs.
    """
    (of, first), *others = tensors.items()
    if not first.is_floating_point():  # type: ignore[union-attr]
        raise ValueError(f"{of} is {first.dtype}: it must be of a floating-point dtype")  # type: ignore[union-attr]
    device = first.device  # type: ignore[union-attr]
    for name, tensor in others:
        if tensor is not None and tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device}, {of} on {device}: move one to the other")


def check_documents(seq_idx: Tensor, expected: tuple[int, ...]) -> None:
    """Raise ValueError where the indices of documents have another shape, or are no integers."""
    check_shape("seq_idx", seq_idx, expected)
    if seq_idx.is_floating_point() or seq_idx.is_complex():
        raise ValueError(f"seq_idx is {seq_idx.dtype}: indices of documents are integers")


def number_documents(seq_idx: Tensor) -> Tensor:
    """Count the documents along each row, int32: one begins wherever the caller's integers change."""
    before = torch.cat([seq_idx[:, :1], seq_idx[:, :-1]], dim=1)
    return (seq_idx != before).cumsum(1, dtype=torch.int32)


def check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    """Raise ValueError naming the argument, its shape and the expected one."""
    if tensor.shape != expected:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")
