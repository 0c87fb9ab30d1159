"""How fast a model decodes here; a figure of the machine, kept apart from the deterministic metrics."""

from __future__ import annotations

import statistics
import time

import torch

from model import HybridLM, generate

PROMPT, NEW, REPEATS = 32, 64, 3


def decode_tokens_per_second(model: HybridLM, device: torch.device) -> float:
    """Tokens/s of greedy decoding at batch 1, the prompt's prefill taken off; median of three."""
    ids = torch.arange(PROMPT, device=device).remainder(model.config.vocab_size)[None]

    def seconds(new: int) -> float:
        start = time.perf_counter()
        generate(model, ids, max_new_tokens=new).cpu()  # waits for the device
        return time.perf_counter() - start

    seconds(2)  # warm-up
    return statistics.median((NEW - 1) / (seconds(NEW) - seconds(1)) for _ in range(REPEATS))
