"""Reading a prompt on a GPU: tokens per second and memory by length, and what twice the length costs.

    python -m benchmarks.gpu.prefill [--presets mamba2-2.7b ...] [--lengths 1024 16384 32768] [--json FILE]

bf16, random weights made on the card, one row of random tokens, `model.prefill` as its caller sees it; memory is the
peak above the weights.
"""

import argparse
import time
from statistics import median
from typing import Any

import torch

from benchmarks.gpu.ceilings import ceilings, keep, say
from benchmarks.gpu.decode import random_model
from model import HybridConfig, HybridLM, prefill

PRESETS = ("mamba2-2.7b", "mamba2-hybrid-8b", "nemotron-h-8b")
ROUNDS = 5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 8192, 16384, 32768, 65536])
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    found = ceilings()
    say(found)
    print(f"{'preset':16} {'tokens':>7} {'ms':>9} {'tokens/s':>9} {'over the length before':>23} {'peak MB':>8}")
    found["rows"] = []
    for preset in arguments.presets:
        lm = random_model(HybridConfig.preset(preset))
        before = 0.0
        for length in arguments.lengths:
            row = {"preset": preset, "length": length} | measure(lm, length)
            ratio = f"{row['seconds'] / before:.2f}" if before else "-"
            print(
                f"{preset:16} {length:7} {row['seconds'] * 1e3:9.1f} {length / row['seconds']:9.0f} {ratio:>23} "
                f"{row['peak'] / 1e6:8.0f}",
                flush=True,
            )
            found["rows"].append(row)
            before = row["seconds"]
        del lm
    keep(arguments.json, found)


def measure(lm: HybridLM, length: int) -> dict[str, Any]:
    """Of one length; the first run, which compiles and allocates, is not counted."""
    ids = torch.randint(1, lm.config.vocab_size, (1, length), device="cuda")
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    took = []
    for _ in range(ROUNDS + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        prefill(lm, ids)
        torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return {"seconds": median(took[1:]), "peak": torch.cuda.max_memory_allocated() - held}


if __name__ == "__main__":
    main()
