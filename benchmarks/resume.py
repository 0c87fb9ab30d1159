"""What checkpoints cost a training run, and what a stop costs.

    python -m benchmarks.resume [--rounds 5]

The default model, trained in blocks of steps that take turns: without checkpoints, and with one every 30 s of
training (the default). Then, for the default model and for one of 130 M parameters: how long one checkpoint holds
training up, how long it is written beside training, and how long it takes to check and load it after a stop.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import machine
from model import HybridConfig, HybridLM
from pipeline.params import load_params
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.history import History
from pipeline.training.optimizer import build_optimizer
from pipeline.training.trainer import training_state

BLOCK = 30


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(machine())
    params = load_params()
    models = {
        "default": params.model.hybrid_config(params.tokenize.vocab_size),
        "mamba2-130m": HybridConfig.preset("mamba2-130m"),
    }
    print(f"{'':12} {'state MB':>9} {'training waits ms':>18} {'written in ms':>14} {'checked, loaded ms':>19}")
    for name, config in models.items():
        with tempfile.TemporaryDirectory() as folder:
            figures = one_checkpoint(config, Path(folder), rounds)
        print(f"{name:12} {figures[0]:9.1f} {figures[1]:18.1f} {figures[2]:14.1f} {figures[3]:19.1f}")
    with tempfile.TemporaryDirectory() as folder:
        off, on = blocks(models["default"], Path(folder), params.launch.checkpoint_seconds, rounds)
    print(f"step without {off * 1e3:.1f} ms, with a checkpoint every {params.launch.checkpoint_seconds:.0f} s "
          f"{on * 1e3:.1f} ms: {on / off - 1:+.2%}")  # fmt: skip


class Trained:
    """A model with the optimizer state that a step leaves."""

    def __init__(self, config: HybridConfig, seqlen: int, batch: int) -> None:
        torch.manual_seed(0)
        self.model = HybridLM(config)
        self.optimizer = build_optimizer(self.model, load_params().base)
        self.ids = torch.randint(0, config.vocab_size, (batch, seqlen))
        self.step()

    def step(self) -> None:
        """One training step."""
        self.optimizer.zero_grad(set_to_none=True)
        self.model(self.ids, labels=self.ids).loss.backward()
        self.optimizer.step()

    def save(self, checkpoints: Checkpoints, step: int) -> None:
        """As the trainer does it."""
        checkpoints.save(step, training_state(step, self.model, self.optimizer, History()), {"best": None})


def one_checkpoint(config: HybridConfig, folder: Path, rounds: int) -> tuple[float, float, float, float]:
    """MB, ms that training waits, ms until it is written, ms to check and load it; medians."""
    trained, waits, written, loads = Trained(config, 32, 1), [], [], []
    for step in range(rounds):
        checkpoints = Checkpoints(folder, every=0)
        start = time.perf_counter()
        trained.save(checkpoints, step)
        waits.append(time.perf_counter() - start)
        checkpoints.wait()
        written.append(time.perf_counter() - start - waits[-1])
        start = time.perf_counter()
        assert checkpoints.newest() is not None
        loads.append(time.perf_counter() - start)
    size = (folder / "latest" / "state.pt").stat().st_size / 1e6
    return size, *(statistics.median(times) * 1e3 for times in (waits, written, loads))


def blocks(config: HybridConfig, folder: Path, every: float, rounds: int) -> tuple[float, float]:
    """Seconds per step without checkpoints and with one every `every` seconds, medians of blocks that take turns.

    A block is shorter than `every`, so each block with checkpoints has one, and its cost is scaled to its share.
    """
    trained = Trained(config, 512, 8)
    off, on = [], []
    for _ in range(rounds):
        off.append(timed(trained, None))
        on.append(timed(trained, Checkpoints(folder, every=3600)))
    without = statistics.median(off)
    cost = statistics.median(after - before for before, after in zip(off, on, strict=True))
    return without / BLOCK, without / BLOCK * (1 + cost / every)


def timed(trained: Trained, checkpoints: Checkpoints | None) -> float:
    """Seconds of a block; with checkpoints, one is written beside it."""
    start = time.perf_counter()
    for step in range(BLOCK):
        trained.step()
        if checkpoints and step == 0:
            trained.save(checkpoints, step)
    seconds = time.perf_counter() - start
    if checkpoints:
        checkpoints.wait()
    return seconds


if __name__ == "__main__":
    main()
