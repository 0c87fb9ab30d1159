"""How much faster the data stages are with more processes.

    python -m benchmarks.data.scaling [--megabytes 64] [--workers 1 2] [--rounds 3] [--ray]

Ingest, preprocess and tokenize generated text, the numbers of workers taking turns, each run in a process of its own
that may use as many cores as it has workers. Given for each step is the time in its shards (for the first of a stage
with the start of its workers), then that of the work which stays in the stage's process (decisions, training the BPE,
which has threads of its own, packing), and all of it. Speed-ups are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.shards import Executor, Local, Ray
from pipeline.shards.executors import J, R

BESIDE = "in the stage's process"
ALL = "all of it"


class Timed:
    """An executor that adds the time which each function takes to `seconds`."""

    def __init__(self, executor: Executor, seconds: dict[str, float]) -> None:
        self.executor = executor
        self.seconds = seconds

    def run(self, function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[int, R], None, None]:
        """See `Executor`."""
        called: Any = function
        name = f"{called.args[0].__module__.split('.')[1]}: {called.args[0].__name__}"
        start = time.perf_counter()
        yield from self.executor.run(function, jobs)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="tasks of a Ray on this machine, in place of processes")
    parser.add_argument("--one", nargs=2, metavar=("SOURCE", "WORKERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        source, workers = arguments.one
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(workers)])
        print(json.dumps(measure(Path(source), int(workers), arguments.ray)))
        return
    from benchmarks.machine import machine  # takes torch, which the workers of a run need not load

    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        source = write_text(Path(folder), arguments.megabytes)
        rounds = [
            {workers: measure_apart(source, workers, arguments.ray) for workers in arguments.workers}
            for _ in range(arguments.rounds)
        ]
    first = arguments.workers[0]
    print(f"{'seconds':28}" + "".join(f"{f'{workers} workers':>22}" for workers in arguments.workers))
    for step in rounds[0][first]:
        cells = ""
        for workers in arguments.workers:
            seconds = statistics.median(found[workers][step] for found in rounds)
            faster = statistics.median(found[first][step] / found[workers][step] for found in rounds)
            cells += f"{seconds:14.2f} ({faster:.2f}x)"
        print(f"{step:28}{cells}")


def write_text(folder: Path, megabytes: float) -> Path:
    """JSON lines of documents of some 2,000 characters."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(5000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    path = folder / "text.jsonl"
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            for _ in range(100):
                text = " ".join(rng.choices(words, weights, k=rng.randint(100, 600)))
                file.write(json.dumps({"text": text}) + "\n")
    return path


def measure_apart(source: Path, workers: int, with_ray: bool) -> dict[str, float]:
    """`measure`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data.scaling", "--one", str(source), str(workers)]
    command += ["--ray"] if with_ray else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def timed(workers: int, with_ray: bool, seconds: dict[str, float]) -> Iterator[Timed]:
    """What a stage runs its shards with; a Ray lasts longer."""
    with Local(workers) as local:
        yield Timed(Ray(workers) if with_ray else local, seconds)


def measure(source: Path, workers: int, with_ray: bool) -> dict[str, float]:
    """The seconds in the shards of each step, outside of them, and in all."""
    from dataclasses import replace

    from pipeline.ingest.run import ingest
    from pipeline.params import load_params
    from pipeline.preprocess.run import preprocess
    from pipeline.tokenize.run import tokenize
    from pipeline.work import WorkFolder

    params, seconds = load_params(), dict[str, float]()
    with tempfile.TemporaryDirectory() as folder:
        work = {stage: WorkFolder(Path(folder, stage)) for stage in ("ingest", "preprocess", "tokenize")}
        start = time.perf_counter()
        with timed(workers, with_ray, seconds) as executor:
            ingest(work["ingest"], replace(params.ingest, source=str(source)), executor=executor)
        with timed(workers, with_ray, seconds) as executor:
            preprocess(work["ingest"].out, work["preprocess"], params.preprocess, executor=executor)
        with timed(workers, with_ray, seconds) as executor:
            clean = work["preprocess"].out
            tokenize(clean, work["tokenize"], params.tokenize, checkpoint="embedded", executor=executor)
        total = time.perf_counter() - start
        return seconds | {BESIDE: total - sum(seconds.values()), ALL: total}


if __name__ == "__main__":
    main()
