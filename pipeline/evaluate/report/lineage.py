"""What the figures come from: the machine, the parameters, and each stage's outputs by content."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from pipeline.dvcfile import StageDefinition, read_params
from pipeline.evaluate.report.costs import Hashes
from pipeline.hashing import content_sha256

WITHOUT_EFFECT = ("export", "launch", "tracking")
"""Sections that change nothing of what is measured; an address in the last may hold a password."""


def outputs(stages: Iterable[StageDefinition]) -> dict[str, Hashes]:
    """By stage, what lies where its outputs belong."""
    return {
        stage.name: {path: content_sha256(Path(path)) for path in stage.outs if Path(path).exists()} for stage in stages
    }


def parameters() -> dict[str, dict[str, Any]]:
    """The sections of params.yaml that decide what comes out."""
    return {section: values for section, values in read_params().items() if section not in WITHOUT_EFFECT}


def machine(device: torch.device) -> dict[str, str]:
    """What the figures were computed on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "Device": f"{device.type}, {name}",
        "Threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "PyTorch": torch.__version__,
        "Python": platform.python_version(),
    }
