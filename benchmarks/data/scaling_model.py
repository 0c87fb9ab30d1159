"""What preprocess with near duplicates costs at any size: a model, checked at three sizes and carried to another.

    python -m benchmarks.data.scaling_model [--mb 16 32 64 128 256 512] [--documents 10e9] [--bytes 4000]

Bytes on disk follow from the layout (docs/scaling.md) and are predicted without a measurement, but for the rows of the
annotations. CPU time is a constant and a rate per MB, fitted to the medians of three runs at each of the three smallest
sizes, so that the sum of the squares of relative errors is least; the other three sizes, of a run each, are the check.
Peaks are of anonymous memory: a constant and a rate per record of those read at a time, fitted likewise, and a range.
All of that is without decontamination, whose CPU time is what a run with it takes more, likewise. What more ranges cost
is measured apart (scaling_opens.py), what more records do to the peaks (scaling_peaks.py), and what decontamination
takes where much is held out (scaling_bitmap.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.data.anonymous import peak_memory
from benchmarks.data.corpus import prose, write_shards
from benchmarks.data.peers import Cost, run_measured
from benchmarks.data.scaling_memory import measure_memory, print_memory
from benchmarks.data.scaling_opens import print_opens, seconds_per_open
from pipeline.params import load_params
from pipeline.preprocess.annotate import BANDS, CONTENTS, GROUPS, RECORDS
from pipeline.preprocess.ledger import COLUMNS
from pipeline.preprocess.records import AT_A_TIME
from pipeline.preprocess.run import preprocess
from pipeline.preprocess.runs import ENTRY, RANGE_BYTES, ranges_for
from pipeline.shards import Local
from pipeline.work import WorkFolder

BESIDE = {
    **{"parent": 8, "first": 8, "sizes": 8, "has_fixed": 1, "kinds": 1},
    **{"sources": 2, "hashes": 8, "splits": 1},
}
"""What the ledger has beside COLUMNS while it is decided, bytes of a record: of components, and of the draw."""
MASKS = {"tying": 1, "distinct": 1, "is-cause": 1}
"""And of who takes part, and for whose sake others are dropped."""
SHARD_MB = 2
FITTED, ROUNDS = 3, 3
"""Sizes that the model is fitted to, and runs of each."""


@dataclass(frozen=True)
class Measured:
    """A run of the stage."""

    documents: int
    megabytes: float
    cpu_seconds: float
    contamination_seconds: float
    """That decontamination takes beside, of CPU time."""
    peak_mb: float
    """Of anonymous memory."""
    runs: int
    rows: int
    ledger: int
    """Bytes on disk: of the sorted runs, of the annotations' rows, of the ledger."""


@dataclass(frozen=True)
class Model:
    """What a run in one process takes."""

    stage: tuple[float, float]
    contamination: tuple[float, float]
    """CPU seconds, and CPU seconds for each MB of text: of all else, and of decontamination."""
    base_mb: float
    record_mb: float
    matching: float
    """Memory beside, for each record that is read at a time, and for each byte of a range that is matched."""

    @classmethod
    def fit(cls, smaller: list[Measured], matching: float) -> Model:
        """Of a few sizes."""
        megabytes = [one.megabytes for one in smaller]
        stage = _line(megabytes, [one.cpu_seconds for one in smaller])
        contamination = _line(megabytes, [one.contamination_seconds for one in smaller])
        beside = [one.peak_mb - matching * _range_bytes(one) / 1e6 for one in smaller]
        peak = _line([min(one.documents, AT_A_TIME) for one in smaller], beside)
        return cls(stage, contamination, *peak, matching)

    def cpu_seconds(self, one: Measured) -> float:
        constant, rate = self.stage
        return constant + rate * one.megabytes

    def contamination_seconds(self, one: Measured) -> float:
        constant, rate = self.contamination
        return constant + rate * one.megabytes

    def peak_mb(self, one: Measured) -> float:
        """At most: not all of it is held at once."""
        return self.base_mb + self.record_mb * min(one.documents, AT_A_TIME) + self.matching * _range_bytes(one) / 1e6


def _line(at: list[float], values: list[float]) -> tuple[float, float]:
    """The constant and the rate with the least squares of relative errors."""
    of_each = 1 / np.array(values)
    constant, rate = np.linalg.lstsq(np.stack([of_each, at * of_each], axis=1), np.ones(len(values)))[0]
    return float(constant), float(rate)


def _range_bytes(one: Measured) -> float:
    size = one.documents * load_params().preprocess.near_bands * ENTRY.itemsize
    return size / ranges_for(size)


def entries_per_document() -> int:
    """Names of a document: its content, its group, its bands."""
    return 2 + load_params().preprocess.near_bands


def ledger_bytes() -> int:
    """Of a record."""
    return sum(int(dtype[1:]) for dtype in COLUMNS.values()) + sum({**BESIDE, **MASKS}.values())


def measure(mb: float, place: Path, rounds: int) -> Measured:
    """Run the stage on so much generated prose, in one process; medians of so many runs."""
    table, _ = prose(mb)
    megabytes = table["text"].str.len_bytes().sum() / 1e6
    write_shards(table, place / "in", max(1, round(megabytes / SHARD_MB)))

    def run(work: str, words: int) -> Cost:
        options = ["--stage", str(place / "in"), str(place / work), str(words)]
        return run_measured([sys.executable, "-m", "benchmarks.data.scaling_model", *options], threads=1)

    words = load_params().preprocess.contamination_words
    costs = [(run(f"work-{number}", 0), run(f"searched-{number}", words)) for number in range(rounds)]
    scratch = WorkFolder(place / "work-0").scratch

    def size(*patterns: str) -> int:
        return sum(file.stat().st_size for pattern in patterns for file in scratch.glob(pattern))

    return Measured(
        documents=table.height,
        megabytes=megabytes,
        cpu_seconds=median(cost.cpu_seconds for cost, _ in costs),
        contamination_seconds=median(searched.cpu_seconds - cost.cpu_seconds for cost, searched in costs),
        peak_mb=median(float(cost.stdout.split()[-1]) for cost, _ in costs),
        runs=size(*(f"annotated/*/{name}" for name in (CONTENTS, GROUPS, BANDS))),
        rows=size(f"annotated/*/{RECORDS}"),
        ledger=size(*(f"ledger/{name}.npy" for name in (*COLUMNS, *BESIDE, *MASKS))),
    )


def main() -> None:
    """Print measured and predicted figures, and those of the size that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, nargs=6, default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--documents", type=float, default=10e9)
    parser.add_argument("--bytes", type=float, default=4000, help="of a document, on average")
    parser.add_argument("--stage", nargs=3, metavar=("SOURCE", "WORK", "WORDS"), help="run the stage alone")
    args = parser.parse_args()
    if args.stage:
        params = replace(load_params().preprocess, near_duplicates=True, contamination_words=int(args.stage[2]))
        with peak_memory() as memory:
            preprocess(Path(args.stage[0]), WorkFolder(Path(args.stage[1])), params, executor=Local(1))
        print(memory.peak_mb)
        return
    from benchmarks.machine import machine  # torch, which the stage's processes do without

    found = []
    print(f"{machine()}; one process")
    print(
        f"{'MB':>6} {'documents':>10} {'cpu-s':>7} {'decontamination':>15} {'peak MB':>8} {'runs, B/doc':>12}"
        f" {'rows, B/doc':>12} {'ledger':>7}"
    )
    for index, mb in enumerate(sorted(args.mb)):
        with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
            found.append(measure(mb, Path(folder), ROUNDS if index < FITTED else 1))
        one = found[-1]
        print(
            f"{one.megabytes:6.1f} {one.documents:10,} {one.cpu_seconds:7.2f} {one.contamination_seconds:15.2f}"
            f" {one.peak_mb:8.0f}"
            f" {one.runs / one.documents:12.1f} {one.rows / one.documents:12.1f} {one.ledger / one.documents:7.1f}",
            flush=True,
        )
    held = measure_memory()
    predict = Model.fit(found[:FITTED], held.matching)
    print("predicted / measured:")
    for one in found[FITTED:]:
        runs, ledger = entries_per_document() * ENTRY.itemsize * one.documents, ledger_bytes() * one.documents
        print(
            f"{one.megabytes:6.1f} MB: cpu-s {predict.cpu_seconds(one):.2f} / {one.cpu_seconds:.2f},"
            f" decontamination {predict.contamination_seconds(one):.2f} / {one.contamination_seconds:.2f},"
            f" peak {predict.peak_mb(one):.0f} / {one.peak_mb:.0f} MB,"
            f" runs {runs / 1e6:.2f} / {one.runs / 1e6:.2f} MB, ledger {ledger / 1e6:.2f} / {one.ledger / 1e6:.2f} MB"
        )
    large = found[-1]
    each = seconds_per_open()
    documents, megabytes = args.documents, args.documents * args.bytes / 1e6
    runs = documents * entries_per_document() * ENTRY.itemsize
    print(f"{documents:,.0f} documents of {args.bytes:,.0f} bytes, {megabytes / 1e6:,.1f} TB of text:")
    print(f"  CPU    {predict.stage[1] * megabytes / 3600:,.0f} core-hours")
    print(f"         {predict.contamination[1] * megabytes / 3600:,.0f} core-hours of decontamination")
    print(
        f"  runs   {runs / 1e12:.2f} TB, matched in {runs / RANGE_BYTES:,.0f} ranges of {RANGE_BYTES / 2**20:.0f} MiB"
    )
    print_opens(megabytes, load_params().ingest.shard_mb, runs / RANGE_BYTES, each)
    print(f"  rows   {documents * large.rows / large.documents / 1e12:.2f} TB")
    at_random = sum(BESIDE.values())
    print(
        f"  ledger {documents * ledger_bytes() / 1e9:,.0f} GB, memory-mapped;"
        f" {documents * at_random / 1e9:,.0f} GB of it, components and draw, read at random"
    )
    print_memory(held)


if __name__ == "__main__":
    main()
