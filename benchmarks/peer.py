"""The models under comparison, on the same weights, and how they take turns."""

import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import nn

import model

THREADS = 2
OURS, THEIRS = "model", "transformers"


def make_checkpoint(directory: Path, size: Literal["small", "130m"] = "small") -> None:
    """Write a Mamba2 with random weights, in the format that both sides read: 4 layers of width 256, or mamba2-130m."""
    torch.manual_seed(0)
    if size == "130m":
        config = model.HybridConfig.preset("mamba2-130m")
    else:
        config = model.HybridConfig(pattern="MMMM", vocab_size=8192, d_model=256, d_state=128, headdim=64)
    model.save_pretrained(model.HybridLM(config), directory, format="hf-mamba2")


def load(peer: str, directory: Path) -> nn.Module:
    """The model of `OURS` or `THEIRS`."""
    if peer == OURS:
        return model.load_pretrained(directory)
    from transformers import Mamba2ForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return Mamba2ForCausalLM.from_pretrained(directory)


def checkpoint_directory() -> tempfile.TemporaryDirectory[str]:
    """A directory that goes when its `with` block ends."""
    return tempfile.TemporaryDirectory(prefix="mamba2-benchmark-")


def interleaved_medians(steps: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median seconds of each step; the steps take turns, so that a busy machine slows them alike."""
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(step())
    return {name: statistics.median(samples) for name, samples in times.items()}
