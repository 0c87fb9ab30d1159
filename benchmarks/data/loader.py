"""How much of a training step goes into loading its rows: the default model and batch of params.yaml, on a CPU.

    python -m benchmarks.data.loader [--steps 20] [--rows 200000]

One process, then two that share the batch, each of one thread; and each with the rows in the file cache and dropped
from it. Loading is the order, the gather from the memory maps and the labels. The processes do not exchange
gradients, so a real step of two takes longer and the share is smaller.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import machine
from model import HybridLM
from pipeline.params import load_params
from pipeline.rows import NEVER, RESPONSE, RowFiles, Sequences, open_rows
from pipeline.training.loader import Batch
from pipeline.training.optimizer import build_optimizer
from pipeline.training.order import batch_of_step, micro_batches

WARM_UP = 3
PER_ROW = 4
"""Sequences."""


def write_rows(directory: Path, rows: int, seqlen: int, vocab_size: int) -> None:
    """Rows of random tokens."""
    rng = np.random.default_rng(0)
    files = RowFiles(directory, seqlen=seqlen, vocab_size=vocab_size, pad_id=0)
    files.create(rows)
    for first in range(0, rows, 1000):
        counts = np.full(min(1000, rows - first), PER_ROW)
        lengths = np.full(counts.sum(), seqlen // PER_ROW)
        mask = np.full(lengths.sum(), RESPONSE)
        mask[np.cumsum(lengths) - lengths] = NEVER
        files.write(first, Sequences(rng.integers(0, vocab_size, lengths.sum()), mask, lengths), counts)


def measure(directory: Path, steps: int, rank: int, world_size: int, results: multiprocessing.SimpleQueue) -> None:
    """Train as one of `world_size` processes; put (milliseconds of loading, milliseconds of all) per step."""
    torch.set_num_threads(1)
    all_params = load_params()
    params = all_params.base
    rows, device = open_rows(directory), torch.device("cpu")
    model = HybridLM(all_params.model.hybrid_config(all_params.tokenize.vocab_size)).train()
    optimizer = build_optimizer(model, params)
    loading, whole = [], []
    for step in range(WARM_UP + steps):
        start = time.perf_counter()
        batch = batch_of_step(len(rows), params.batch_size, params.seed, step)
        shares = micro_batches(batch, params.micro_batch_size, rank, world_size)
        micro = [Batch(rows, part, device) for part in shares]
        loaded = time.perf_counter()
        for part in micro:
            model(part.input_ids, labels=part.labels, seq_idx=part.seq_idx).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loading.append(loaded - start)
        whole.append(time.perf_counter() - start)
    results.put((1e3 * np.mean(loading[WARM_UP:]), 1e3 * np.mean(whole[WARM_UP:])))


def drop_from_cache(directory: Path) -> None:
    """Ask the system to forget what it has of the files."""
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=200_000)
    arguments = parser.parse_args()
    tokenize = load_params().tokenize
    print(machine())
    print(f"{'processes':>9} {'rows':>9} {'loading':>9} {'step':>9} {'share':>7}")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder), arguments.rows, tokenize.seqlen, tokenize.vocab_size)
        for world_size in (1, 2):
            for state in ("cached", "dropped"):
                if state == "dropped":
                    drop_from_cache(Path(folder))
                results = context.SimpleQueue()
                processes = [
                    context.Process(target=measure, args=(Path(folder), arguments.steps, rank, world_size, results))
                    for rank in range(world_size)
                ]
                for process in processes:
                    process.start()
                loading, step = np.max([results.get() for _ in processes], axis=0)
                for process in processes:
                    process.join()
                print(f"{world_size:9} {state:>9} {loading:6.2f} ms {step:6.0f} ms {loading / step:7.2%}", flush=True)


if __name__ == "__main__":
    main()
