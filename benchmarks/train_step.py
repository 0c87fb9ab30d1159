"""Training steps (forward and backward with labels) on a CPU against transformers on the same weights.

    python -m benchmarks.train_step [--cases small-2x1024 small-1x4096 130m-1x1024] [--precisions fp32 bf16]

Time: both in this process, taking turns, medians. Memory: each peer in a fresh process; the high-water mark of
its resident memory (VmHWM; ru_maxrss would count this process's too) over one step, less the resident memory before
that step. A first step on one short row loads the libraries' kernels beforehand, so the figure is what the step itself
adds: activations, gradients and temporaries.

Of the rate: FLOP of the step (6 per weight of a matrix and token, and the SSD's) per second, over what torch's largest
matrix products reach in the same run and precision. bf16 is autocast; it is left out where the processor has none.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import model
from benchmarks.machine import machine
from benchmarks.peer import OURS, THEIRS, THREADS, checkpoint_directory, interleaved_medians, load, make_checkpoint

CASES = {"small-2x1024": ("small", 2, 1024), "small-1x4096": ("small", 1, 4096), "130m-1x1024": ("130m", 1, 1024)}
"""Model, rows and tokens."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train_step(lm: nn.Module, input_ids: Tensor, dtype: torch.dtype) -> float:
    """Run one step and return its seconds."""
    lm.zero_grad(set_to_none=True)
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = lm(input_ids, labels=input_ids).loss
    loss.backward()
    return time.perf_counter() - start


def extra_memory(peer: str, directory: Path, batch: int, seqlen: int, dtype: torch.dtype) -> float:
    """MiB that one step adds to the resident memory of this (fresh) process."""
    lm = load(peer, directory).train()
    input_ids = torch.randint(0, 8192, (batch, seqlen))
    train_step(lm, input_ids[:1, :8], dtype)
    lm.zero_grad(set_to_none=True)
    before = resident("VmRSS")
    train_step(lm, input_ids, dtype)
    return resident("VmHWM") - before


def resident(which: str) -> float:
    """MiB of this process's resident memory, now or at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 2**10


def extra_memory_in_fresh_process(peer: str, directory: Path, case: str, precision: str) -> float:
    """`extra_memory` measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.train_step", "--checkpoint", str(directory)]
    command += ["--memory-of", peer, "--cases", case, "--precisions", precision]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def flop(config: model.HybridConfig, tokens: int) -> float:
    """Of a step: forward and twice that backward."""
    inner, grouped = config.nheads * config.headdim, config.n_groups * config.d_state
    projections = config.d_model * (2 * inner + 2 * grouped + config.nheads) + inner * config.d_model
    scan = 2 * inner * config.d_state + (inner + grouped) * 64  # of multiplications; within chunks of 64 positions
    layers = len(config.layers) * (projections + scan)
    return 6.0 * tokens * (layers + config.vocab_size * config.d_model)


def product_rate(dtype: torch.dtype) -> float:
    """FLOP per second of torch's product of large matrices."""
    a, b = (torch.randn(1536, 1536).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - start)
    return 2 * 1536**3 / statistics.median(seconds[1:])


def has_bf16() -> bool:
    """Whether the processor multiplies bf16."""
    flags = Path("/proc/cpuinfo").read_text()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def main() -> None:
    """Print the table, or the memory of one peer for the parent process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--precisions", nargs="+", choices=DTYPES, default=["fp32", *(["bf16"] if has_bf16() else [])])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory-of", choices=[OURS, THEIRS], help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    if arguments.memory_of:
        _, batch, seqlen = CASES[arguments.cases[0]]
        dtype = DTYPES[arguments.precisions[0]]
        print(extra_memory(arguments.memory_of, arguments.checkpoint, batch, seqlen, dtype))
        return

    print(machine())
    print(f"{'':28}{'s/step':>9}{'tokens/s':>10}{'of the rate':>13}{'extra MiB':>11}")
    for case in arguments.cases:
        with checkpoint_directory() as name:
            directory = Path(name)
            make_checkpoint(directory, CASES[case][0])
            for precision in arguments.precisions:
                compare(case, precision, directory, arguments.rounds)


def compare(case: str, precision: str, directory: Path, rounds: int) -> None:
    """Three lines of the table."""
    dtype, (_, batch, seqlen) = DTYPES[precision], CASES[case]
    memory = {peer: extra_memory_in_fresh_process(peer, directory, case, precision) for peer in (OURS, THEIRS)}
    models = {peer: load(peer, directory).train() for peer in (OURS, THEIRS)}
    input_ids = torch.randint(0, 8192, (batch, seqlen))
    steps = {peer: lambda lm=lm: train_step(lm, input_ids, dtype) for peer, lm in models.items()}
    seconds = interleaved_medians(steps, rounds)
    config = models[OURS].config
    assert isinstance(config, model.HybridConfig)
    work, most = flop(config, batch * seqlen), product_rate(dtype)
    for peer in (OURS, THEIRS):
        share = work / seconds[peer] / most
        print(
            f"{case:13} {precision} {peer:12}{seconds[peer]:7.3f}{batch * seqlen / seconds[peer]:10.0f}"
            f"{share:13.0%}{memory[peer]:11.0f}"
        )
    print(
        f"{'':18} ours / theirs: {seconds[THEIRS] / seconds[OURS]:.2f}x tokens/s, "
        f"{memory[OURS] / memory[THEIRS]:.0%} of the extra memory; products {most / 1e9:.0f} GFLOP/s",
        flush=True,
    )


if __name__ == "__main__":
    main()
