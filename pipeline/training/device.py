"""Where and how exactly a model computes: device, precision, seeds, memory."""

from __future__ import annotations

import os
import random
import resource
from typing import Any

import torch

from pipeline.params import Device, Precision


def pick_device(choice: Device) -> torch.device:
    """The device that `launch.device` means on this machine.

    Raises:
        ValueError: `cuda` is asked for and there is none.
    """
    if choice is Device.cuda and not torch.cuda.is_available():
        raise ValueError("params.yaml: launch.device is cuda, but PyTorch sees no GPU here; use auto or cpu")
    use_cuda = choice is not Device.cpu and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")


def what_decides_bits(choice: Device) -> dict[str, Any]:
    """What of this machine decides the bits of a computation on the device that `pick_device` names."""
    device = pick_device(choice)
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def make_deterministic(seed: int) -> None:
    """Seed every generator and forbid operators whose result changes from run to run."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which forward passes run under `precision`; parameters stay fp32 in either."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is Precision.bf16)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far in MB: of the allocator on a GPU, of the process (resident) on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
