"""Training steps on a GPU: tokens per second, share of the card's bf16 rate (MFU), peak memory, per preset that fits.

    python -m benchmarks.gpu.train [--presets mamba2-130m ...] [--backends triton torch] [--json FILE]

AdamW, bf16 weights and moments, one batch of random tokens, as large as 80 GB hold (the 8B ask for more). MFU counts 6
FLOP per token and parameter that is multiplied (an embedding table beside the head is not), no more.
"""

import argparse
import os
from typing import Any

import torch

from benchmarks.gpu.ceilings import ceilings, keep, say, seconds
from model import HybridConfig, HybridLM
from model.ops._common import VARIABLE

BATCH = {
    "mamba2-130m": (32, 2048),
    "mamba2-370m": (16, 2048),
    "mamba2-780m": (8, 2048),
    "mamba2-1.3b": (8, 2048),
    "mamba2-2.7b": (3, 4096),
    "mamba2-8b": (1, 4096),
    "mamba2-hybrid-8b": (1, 4096),
    "nemotron-h-8b": (1, 4096),
}
"""Rows and tokens of a step."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=list(BATCH), choices=list(BATCH))
    parser.add_argument("--backends", nargs="+", default=["triton", "torch"])
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    found = ceilings()
    say(found)
    print(f"{'preset':16} {'backend':8} {'batch':>10} {'tokens/s':>9} {'MFU':>6} {'peak GB':>8}")
    found["rows"] = []
    for preset in arguments.presets:
        for backend in arguments.backends:
            os.environ[VARIABLE] = backend
            row = {"preset": preset, "backend": backend} | measure(preset, found["product"])
            found["rows"].append(row)
            rows, tokens = BATCH[preset]
            figures = f"{row['rate']:9.0f} {row['mfu']:6.1%} {row['peak'] / 1e9:8.1f}" if "rate" in row else "no room"
            print(f"{preset:16} {backend:8} {rows:2} x {tokens:5} {figures}", flush=True)
    keep(arguments.json, found)


def measure(preset: str, product: float) -> dict[str, Any]:
    """Of one preset; nothing where the memory ends."""
    torch.manual_seed(0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    config = HybridConfig.preset(preset)
    rows, tokens = BATCH[preset]
    try:
        with torch.device("cuda"):
            lm = HybridLM(config).to(torch.bfloat16)
        optimizer = torch.optim.AdamW(lm.parameters(), fused=True)
        ids = torch.randint(0, config.vocab_size, (rows, tokens), device="cuda")

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            lm(ids, labels=ids).loss.backward()
            optimizer.step()

        took = seconds(step)
    except torch.OutOfMemoryError:
        return {}
    rate = rows * tokens / took
    looked_up = 0 if config.tie_embeddings else config.vocab_size * config.d_model
    mfu = 6 * (config.num_parameters() - looked_up) * rate / product
    return {"rate": rate, "mfu": mfu, "peak": torch.cuda.max_memory_allocated()}


if __name__ == "__main__":
    main()
