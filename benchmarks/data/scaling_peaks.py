"""The memory of the stages' own processes at five sizes: what the two smaller ones say of the larger ones, and what is.

    python -m benchmarks.data.scaling_peaks [--records 500000 1000000 2000000 4000000 8000000]

Documents are short, so that they are many for their bytes. Preprocess and tokenize run in processes of their own, with
two workers, and tell their peaks: of anonymous memory (what is not pages of files, which the kernel may drop). The
model is that it does not grow: the higher peak of the two smaller sizes is to be that of the larger ones.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.data.anonymous import peak_memory
from benchmarks.data.corpus import write_shards

STAGES = ("preprocess", "tokenize")
WORDS = [f"{first}{last}" for first in ("lo", "ri", "ta", "me") for last in ("rem", "sum", "dolor", "sit", "amet")]
RECORDS_OF_A_SHARD = 50_000


def short_documents(count: int) -> pl.DataFrame:
    """`id`, `text`: eight words and a number; one in ten has the number, but not the words, of the one before."""
    rng = np.random.default_rng(0)
    numbers = np.arange(count)
    words = pl.Series(WORDS)
    columns = [words.gather(rng.integers(0, len(WORDS), count)) for _ in range(8)]
    is_copy = rng.random(count) < 0.1
    is_copy[0] = False
    origin = np.where(is_copy, numbers - 1, numbers)
    table = pl.DataFrame([*(column.alias(str(place)) for place, column in enumerate(columns))])
    table = table.with_columns(number=numbers).select(text=pl.concat_str(pl.all(), separator=" "))
    return table.select(pl.Series("id", numbers).cast(pl.String), pl.col("text").gather(origin))


def range_mb(stage: str, records: int) -> float:
    """MB of the contents that the stage's process matches itself, at most."""
    from pipeline.preprocess.runs import ENTRY, SMALL_RANGE_BYTES

    return min(records * ENTRY.itemsize, SMALL_RANGE_BYTES) / 1e6 if stage == "preprocess" else 0.0


def run_stage(stage: str, source: Path, place: Path, held_out: float) -> None:
    """Run it as its command does; prints the MB."""
    from pipeline.params import EMBEDDED, load_params
    from pipeline.preprocess.run import preprocess
    from pipeline.shards import Local
    from pipeline.tokenize.run import tokenize
    from pipeline.work import WorkFolder

    params = load_params()
    fractions = {f"{split}_fraction": held_out for split in ("validation", "test")} if held_out else {}
    with Local(2) as executor, peak_memory() as memory:
        if stage == "preprocess":
            preprocess(source, WorkFolder(place), replace(params.preprocess, **fractions), executor=executor)
        else:
            tokenize(source, WorkFolder(place), params.tokenize, checkpoint=EMBEDDED, executor=executor)
    print(f"{memory.peak_mb:.0f}")


def measure(count: int, held_out: float) -> dict[str, float]:
    """MB of each stage."""
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        folder, found = Path(name), {}
        write_shards(short_documents(count), folder / "in", -(-count // RECORDS_OF_A_SHARD))
        source = folder / "in"
        for stage in STAGES:
            command = [sys.executable, "-m", "benchmarks.data.scaling_peaks", "--stage", stage]
            done = subprocess.run(
                [*command, str(source), str(folder / stage), str(held_out)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            found[stage] = float(done.stdout.split()[-1])
            source = folder / stage / "done" / "out"
    return found


def main() -> None:
    """Print what is predicted and what is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs=5, default=[500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000])
    parser.add_argument("--held-out", type=float, default=0.0, help="of validation and of test; 0: as in params.yaml")
    parser.add_argument("--stage", nargs=4, metavar=("STAGE", "SOURCE", "WORK", "HELD_OUT"), help="run one stage alone")
    args = parser.parse_args()
    if args.stage:
        stage, source, place, held_out = args.stage
        run_stage(stage, Path(source), Path(place), float(held_out))
        return
    from benchmarks.data.scaling_memory import measure_memory
    from benchmarks.machine import machine  # torch, which the stages' processes do without

    print(f"{machine()}; two workers; peak of anonymous memory of the stage's own process, MB")
    print(f"{'records':>10}" + "".join(f"{stage:>14} {'predicted':>10}" for stage in STAGES), flush=True)
    matching = measure_memory().matching
    smaller: list[dict[str, float]] = []
    for count in sorted(args.records):
        found = measure(count, args.held_out)
        beside = {stage: mb - matching * range_mb(stage, count) for stage, mb in found.items()}
        is_check = len(smaller) == 2
        cells = ""
        for stage in STAGES:
            base = max((one[stage] for one in smaller), default=0.0)
            predicted = f"{base + matching * range_mb(stage, count):.0f}" if is_check else ""
            cells += f"{found[stage]:14.0f} {predicted:>10}"
        print(f"{count:10,}{cells}", flush=True)
        if not is_check:
            smaller.append(beside)


if __name__ == "__main__":
    main()
