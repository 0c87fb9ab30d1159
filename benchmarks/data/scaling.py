"""How much faster the data stages are with more processes.

    python -m benchmarks.data.scaling [--mb 512] [--workers 1 2] [--rounds 3] [--ray] [--set [KEY=VALUE ...]]

Ingest, preprocess and tokenize generated prose (16 files) as params.yaml has it, but with what is measured beside
datatrove (quality rules and near duplicates; contamination is not looked for), or as `--set` says; `--set` alone leaves
all as it is there. The numbers of workers take turns at each stage, since no machine is always as fast. Each stage is
in a process of its own that may use as many cores as it has workers. The clock runs from when the parameters are read,
as the stage's imports and its workers start. Given for each step is the time in its shards (for the first of a stage
with the start of its workers, as far as that is waited for), then that of the work which stays in the stage's process
(imports, decisions, training the BPE, which has threads of its own, packing), and all of it. Speed-ups are medians over
the rounds.

The last line is what the machine has to give: as many runs side by side, each with the first number of workers and on
cores of its own, share nothing and do so many times the work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.shards import Executor, Local
from pipeline.shards.executors import J, R
from pipeline.shards.executors.ray import Ray

STAGES = ("ingest", "preprocess", "tokenize")

BESIDE = "in the stage's process"
ALL = "all of it"
SIDE_BY_SIDE = "runs side by side"

FILES = 16
MEASURED = (
    "preprocess.quality=[gopher,c4,fineweb]",
    "preprocess.near_duplicates=true",
    "preprocess.contamination_words=0",
)
"""Parameters of the measurements beside datatrove."""
PARAMS = "params.yaml"

Seconds = dict[str, float]


class Timed:
    """An executor that adds the time which each function takes to `seconds`."""

    def __init__(self, executor: Executor, seconds: Seconds) -> None:
        self.executor = executor
        self.seconds = seconds
        self.here = executor.here

    def start(self, jobs: int, module: str) -> None:
        """See `Executor`."""
        self.executor.start(jobs, module)

    def run(self, function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[int, R], None, None]:
        """See `Executor`."""
        called: Any = getattr(function, "args", [function])[0]  # of what is kept, what makes it
        name = f"{called.__module__.split('.')[1]}: {called.__name__}"
        start = time.perf_counter()
        yield from self.executor.run(function, jobs)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=512)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="tasks of a Ray on this machine, in place of processes")
    parser.add_argument("--set", nargs="*", default=MEASURED, help="parameters other than those of params.yaml")
    parser.add_argument("--stage", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        stage, folder, workers, first_core = arguments.stage
        run_on(int(first_core), int(workers))
        print(json.dumps(measure(stage, Path(folder), int(workers), arguments.ray)))
        return
    from benchmarks.machine import machine  # takes torch, which the workers of a run need not load

    print(machine())
    first, *_ = arguments.workers
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        write_source(source, arguments.mb, arguments.set)
        rounds = []
        for _ in range(arguments.rounds):
            found = measure_in_turns(source, arguments.workers, arguments.ray)
            for workers in arguments.workers:
                runs = workers // first
                together = found[first][ALL] if runs == 1 else measure_side_by_side(source, first, runs, arguments.ray)
                found[workers][SIDE_BY_SIDE] = together / runs
            rounds.append(found)
    print(f"{'seconds':28}" + "".join(f"{f'{workers} workers':>22}" for workers in arguments.workers))
    for step in rounds[0][first]:
        cells = ""
        for workers in arguments.workers:
            seconds = statistics.median(found[workers][step] for found in rounds)
            faster = statistics.median(found[first][step] / found[workers][step] for found in rounds)
            cells += f"{seconds:14.2f} ({faster:.2f}x)"
        print(f"{step:28}{cells}")


def run_on(first_core: int, count: int) -> None:
    """Let this process, and what it starts, run on so many of its cores only."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[first_core : first_core + count])


def write_source(folder: Path, mb: float, settings: Sequence[str]) -> None:
    """What a run begins with: the files in `text`, and the parameters."""
    from omegaconf import OmegaConf

    from benchmarks.data import corpus

    documents, _ = corpus.prose(mb)
    corpus.write_shards(documents, folder / "text", FILES, jsonl=True)
    params = [OmegaConf.load("params.yaml"), OmegaConf.from_dotlist([f"ingest.source={folder / 'text'}", *settings])]
    OmegaConf.save(OmegaConf.merge(*params), folder / PARAMS)


def measure_in_turns(source: Path, counts: Sequence[int], with_ray: bool, first_core: int = 0) -> dict[int, Seconds]:
    """By the number of workers, the seconds of all stages, each in a process of its own: in the shards of each step,
    outside of them, in all."""
    totals: dict[int, Seconds] = {workers: {} for workers in counts}
    with tempfile.TemporaryDirectory() as name:
        for workers in counts:
            folder = Path(name, str(workers))
            folder.mkdir()
            shutil.copyfile(source / PARAMS, folder / PARAMS)
        for stage in STAGES:
            for workers, total in totals.items():
                command = [sys.executable, "-m", "benchmarks.data.scaling", "--stage", stage, f"{name}/{workers}"]
                command += [str(workers), str(first_core), *(["--ray"] if with_ray else [])]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found: Seconds = json.loads(done.stdout.splitlines()[-1])
                outside = {step: total.pop(step, 0.0) + found.pop(step) for step in (BESIDE, ALL)}
                total |= found | outside
    return totals


def measure_side_by_side(source: Path, workers: int, runs: int, with_ray: bool) -> float:
    """The seconds of the slowest of some runs that start together, each on other cores."""
    with ThreadPoolExecutor(runs) as threads:
        firsts = [run * workers for run in range(runs)]
        all_runs = threads.map(lambda first: measure_in_turns(source, [workers], with_ray, first), firsts)
        return max(found[workers][ALL] for found in all_runs)


@contextmanager
def timed(workers: int, with_ray: bool, seconds: Seconds) -> Iterator[Timed]:
    """What a stage runs its shards with; a Ray lasts longer."""
    with Local(workers) as local:
        yield Timed(Ray(workers) if with_ray else local, seconds)


def measure(stage: str, folder: Path, workers: int, with_ray: bool) -> Seconds:
    """The seconds of one stage, run as its command runs it, from when the parameters are read."""
    from pipeline.params import load_params
    from pipeline.shards import read_manifest, shard_names
    from pipeline.work import WorkFolder

    params, seconds = load_params(folder / PARAMS), Seconds()
    ingested, clean, tokens = (WorkFolder(folder / name) for name in STAGES)
    start = time.perf_counter()
    with timed(workers, with_ray, seconds) as executor:
        match stage:
            case "ingest":
                from pipeline.ingest.run import ingest

                ingest(ingested, params.ingest, executor=executor)
            case "preprocess":
                executor.start(len(shard_names(read_manifest(ingested.out))), "pipeline.preprocess.annotate")
                from pipeline.preprocess.run import preprocess

                preprocess(ingested.out, clean, params.preprocess, executor=executor)
            case "tokenize":
                from pipeline.tokenize.run import tokenize

                tokenize(clean.out, tokens, params.tokenize, checkpoint="embedded", executor=executor)
    total = time.perf_counter() - start
    return seconds | {BESIDE: total - sum(seconds.values()), ALL: total}


if __name__ == "__main__":
    main()
