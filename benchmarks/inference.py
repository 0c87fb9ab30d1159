"""Prefill and decoding at contexts from 1k to 64k tokens, against transformers on the same weights, on a CPU.

    python -m benchmarks.inference [--contexts 1024 4096 16384 32768 65536] [--theirs-up-to 16384]
    python -m benchmarks.inference --models mamba2-130m hybrid-130m --contexts 256 1024 --theirs-up-to 256

A Mamba2 and a hybrid with attention, 4 and 8 layers of width 256, and two of the smallest published width. What a
longer context and more rows cost a model beside itself is `benchmarks.context`'s to say.

Every figure is of a process of its own, ours and theirs in turn; the prompt is random tokens. Prefill is the time to
the first token, decoding the median time between two tokens after it, as the caller of either generate() sees them;
memory is the peak above what the loaded model took. transformers is left out above `--theirs-up-to` tokens.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

import model
from benchmarks.machine import machine
from benchmarks.peer import OURS, THEIRS, THREADS, checkpoint_directory

NEW = 33
SIZES: dict[str, Any] = {"vocab_size": 8192, "d_model": 256, "d_state": 128, "headdim": 64, "chunk_size": 128}
WIDE = {"vocab_size": 50288, "d_model": 768}
HYBRID = {"pattern": "M-M*-M-M", "n_heads": 4, "n_kv_heads": 2, "d_ff": 1024, "mlp_activation": "relu2"}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mamba2": ("hf-mamba2", "Mamba2", {"pattern": "MMMM"}),
    "hybrid": ("hf-nemotron-h", "NemotronH", HYBRID),
    "mamba2-130m": ("hf-mamba2", "Mamba2", WIDE | {"pattern": "M" * 24}),
    "hybrid-130m": (
        "hf-nemotron-h",
        "NemotronH",
        HYBRID | WIDE | {"pattern": "M-M*-M-M-M*-M-M", "n_heads": 12, "n_kv_heads": 4, "d_ff": 3072},
    ),
}
"""Format, stem of their classes' names, architecture."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["mamba2", "hybrid"])
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 4096, 16384, 32768, 65536])
    parser.add_argument("--theirs-up-to", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=3, help="processes per figure; the medians are shown")
    parser.add_argument("--one", nargs=4, metavar=("PEER", "MODEL", "TOKENS", "ROWS"), help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        peer, name, tokens, rows = arguments.one
        print(json.dumps(measure(peer, name, Path(arguments.checkpoint), int(tokens), int(rows))))
        return
    print(machine())
    for name in arguments.models:
        form, _, architecture = MODELS[name]
        with checkpoint_directory() as folder:
            torch.manual_seed(0)
            config = model.HybridConfig(**SIZES | architecture)
            model.save_pretrained(model.HybridLM(config), folder, format=form)
            table(name, folder, arguments.contexts, arguments.theirs_up_to, arguments.rounds)


def table(name: str, folder: str, contexts: list[int], theirs_up_to: int, rounds: int) -> None:
    """Measure one model at all contexts."""
    print(f"\n{name}: {MODELS[name][2]['pattern']}")
    print(f"{'tokens':>8} {'rows':>5} | {'prefill tokens/s':^26} | {'decoded tokens/s':^26} | {'peak MB':^16}")
    print(f"{'':14} | {'ours':>8} {'theirs':>8} {'ratio':>8} | {'ours':>8} {'theirs':>8} {'ratio':>8} | "
          f"{'ours':>8} {'theirs':>8}")  # fmt: skip
    for tokens, rows in [(tokens, 1) for tokens in contexts] + [(contexts[0], 16)]:
        peers = [OURS] + [THEIRS] * (tokens <= theirs_up_to)
        samples: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
        for _ in range(rounds):
            for peer in peers:
                samples[peer].append(one(peer, name, folder, tokens, rows))
        found = {
            peer: {key: statistics.median(sample[key] for sample in samples[peer]) for key in samples[peer][0]}
            for peer in peers
        }
        cells = [
            (
                rows * tokens / found[OURS]["prefill"],
                rows * tokens / found[THEIRS]["prefill"] if THEIRS in found else 0.0,
            ),
            (rows / found[OURS]["step"], rows / found[THEIRS]["step"] if THEIRS in found else 0.0),
        ]
        shown = " | ".join(
            f"{mine:8.0f} {other:8.0f} {mine / other:7.2f}x" if other else f"{mine:8.0f} {'-':>8} {'-':>8}"
            for mine, other in cells
        )
        memory = f"{found[OURS]['peak']:8.0f} " + (f"{found[THEIRS]['peak']:8.0f}" if THEIRS in found else f"{'-':>8}")
        print(f"{tokens:8d} {rows:5d} | {shown} | {memory}", flush=True)


def one(peer: str, name: str, folder: str, tokens: int, rows: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.inference", "--checkpoint", folder]
    done = subprocess.run(
        [*command, "--one", peer, name, str(tokens), str(rows)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{peer} {name} {tokens} x {rows}: {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(peer: str, name: str, folder: Path, tokens: int, rows: int) -> dict[str, float]:
    """Seconds to the first token, median seconds between two later ones, MB of peak memory above the model."""
    torch.set_num_threads(THREADS)
    times: list[float] = []
    torch.manual_seed(1)
    prompt = torch.randint(1, SIZES["vocab_size"], (rows, tokens))
    if peer == OURS:
        lm = model.load_pretrained(folder).eval()
        model.generate(lm, prompt[:, :64], max_new_tokens=4)  # what is imported or built once
        before = peak()
        start = time.perf_counter()
        for _ in model.generate_stream(lm, prompt, max_new_tokens=NEW):
            times.append(time.perf_counter())
    else:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        theirs = getattr(transformers, f"{MODELS[name][1]}ForCausalLM").from_pretrained(folder).eval()
        options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        theirs.generate(prompt[:, :64], attention_mask=torch.ones_like(prompt[:, :64]), max_new_tokens=4, **options)
        clock = Clock(times)
        before = peak()
        start = time.perf_counter()
        theirs.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, logits_processor=[clock], **options
        )
    steps = [later - earlier for earlier, later in pairwise(times[1:])]
    return {"prefill": times[0] - start, "step": statistics.median(steps), "peak": (peak() - before) / 1e6}


class Clock:
    """A logits processor that changes nothing and notes when the logits of each token are there."""

    def __init__(self, times: list[float]) -> None:
        self._times = times

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._times.append(time.perf_counter())
        return scores


def peak() -> float:
    """Bytes of memory of this process, at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


if __name__ == "__main__":
    main()
