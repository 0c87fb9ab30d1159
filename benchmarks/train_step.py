"""Training step (forward and backward with labels, fp32) against transformers on the same weights.

    python -m benchmarks.train_step [--rounds 7]

Time: both in this process, taking turns, medians. Memory: each peer in a fresh process; the high-water mark of
its resident memory (ru_maxrss) over one step, less the resident memory before that step. A first step on
one short row loads the libraries' kernels beforehand, so the figure is what the step itself adds: activations,
gradients and temporaries.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.machine import machine
from benchmarks.peer import OURS, THEIRS, THREADS, checkpoint_directory, interleaved_medians, load, make_checkpoint

BATCH, SEQLEN = 2, 1024


def train_step(lm: nn.Module, input_ids: Tensor) -> float:
    """Run one step and return its seconds."""
    lm.zero_grad(set_to_none=True)
    start = time.perf_counter()
    lm(input_ids, labels=input_ids).loss.backward()
    return time.perf_counter() - start


def extra_memory(peer: str, directory: Path) -> float:
    """MiB that one step adds to the resident memory of this (fresh) process."""
    lm = load(peer, directory).train()
    input_ids = torch.randint(0, 8192, (BATCH, SEQLEN))
    train_step(lm, input_ids[:1, :8])
    lm.zero_grad(set_to_none=True)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = pages * resource.getpagesize() / 2**20
    train_step(lm, input_ids)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before


def extra_memory_in_fresh_process(peer: str, directory: Path) -> float:
    """`extra_memory` measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.train_step", "--memory-of", peer, "--checkpoint", str(directory)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    """Print the table, or the memory of one peer for the parent process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory-of", choices=[OURS, THEIRS], help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    if args.memory_of:
        print(extra_memory(args.memory_of, args.checkpoint))
        return

    print(machine())
    with checkpoint_directory() as name:
        directory = Path(name)
        make_checkpoint(directory)
        memory = {peer: extra_memory_in_fresh_process(peer, directory) for peer in (OURS, THEIRS)}
        models = {peer: load(peer, directory).train() for peer in (OURS, THEIRS)}
    input_ids = torch.randint(0, 8192, (BATCH, SEQLEN))
    steps = {peer: lambda lm=lm: train_step(lm, input_ids) for peer, lm in models.items()}
    seconds = interleaved_medians(steps, args.rounds)
    print(f"{'':14}{'s/step':>10}{'tokens/s':>10}{'extra MiB':>11}")
    for peer in (OURS, THEIRS):
        print(f"{peer:14}{seconds[peer]:10.3f}{BATCH * SEQLEN / seconds[peer]:10.0f}{memory[peer]:11.0f}")
    print(
        f"{OURS} / {THEIRS}: {seconds[THEIRS] / seconds[OURS]:.2f}x tokens/s, "
        f"{memory[OURS] / memory[THEIRS]:.0%} of the extra memory"
    )


if __name__ == "__main__":
    main()
