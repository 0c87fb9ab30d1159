"""What preprocess with near duplicates costs at any size: a model, checked at three sizes and carried to a fourth.

    python -m benchmarks.data.scaling_model [--mb 16 48 128] [--documents 10e9] [--bytes 4000]

Bytes on disk follow from the layout (docs/scaling.md) and are predicted without a measurement, but for the rows of the
annotations. CPU time is a constant and a rate per MB, fitted to the two smaller sizes. The largest size is the check.
Decontamination is off. These have one range each; what more ranges cost is measured apart (scaling_opens.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.data.corpus import prose, write_shards
from benchmarks.data.peers import run_measured
from benchmarks.data.scaling_memory import print_memory
from benchmarks.data.scaling_opens import print_opens, seconds_per_open
from pipeline.params import load_params
from pipeline.preprocess.annotate import BANDS, CONTENTS, GROUPS, RECORDS
from pipeline.preprocess.ledger import COLUMNS
from pipeline.preprocess.run import preprocess
from pipeline.preprocess.runs import ENTRY, RANGE_BYTES
from pipeline.shards import Local
from pipeline.work import WorkFolder

BESIDE = {"parent": 8, "first": 8, "sizes": 8, "has_fixed": 1, "kinds": 1, "sources": 2, "hashes": 8}
"""What the ledger has beside COLUMNS while it is decided, bytes of a record: of components, and of the draw."""
SHARD_MB = 2


@dataclass(frozen=True)
class Measured:
    """A run of the stage."""

    documents: int
    megabytes: float
    cpu_seconds: float
    peak_mb: float
    runs: int
    rows: int
    ledger: int
    """Bytes on disk: of the sorted runs, of the annotations' rows, of the ledger."""


def entries_per_document() -> int:
    """Names of a document: its content, its group, its bands."""
    return 2 + load_params().preprocess.near_bands


def ledger_bytes() -> int:
    """Of a record."""
    return sum(int(dtype[1:]) for dtype in COLUMNS.values()) + sum(BESIDE.values())


def measure(mb: float, place: Path) -> Measured:
    """Run the stage on so much generated prose, in one process."""
    table, _ = prose(mb)
    megabytes = table["text"].str.len_bytes().sum() / 1e6
    write_shards(table, place / "in", max(1, round(megabytes / SHARD_MB)))
    options = ["--stage", str(place / "in"), str(place / "work")]
    cost = run_measured([sys.executable, "-m", "benchmarks.data.scaling_model", *options], threads=1)
    scratch = WorkFolder(place / "work").scratch

    def size(*patterns: str) -> int:
        return sum(file.stat().st_size for pattern in patterns for file in scratch.glob(pattern))

    return Measured(
        documents=table.height,
        megabytes=megabytes,
        cpu_seconds=cost.cpu_seconds,
        peak_mb=cost.peak_mb,
        runs=size(*(f"annotated/*/{name}" for name in (CONTENTS, GROUPS, BANDS))),
        rows=size(f"annotated/*/{RECORDS}"),
        ledger=size(*(f"ledger/{name}.npy" for name in (*COLUMNS, *BESIDE))),
    )


def main() -> None:
    """Print measured and predicted figures, and those of the size that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, nargs=3, default=[16, 48, 128])
    parser.add_argument("--documents", type=float, default=10e9)
    parser.add_argument("--bytes", type=float, default=4000, help="of a document, on average")
    parser.add_argument("--stage", nargs=2, metavar=("SOURCE", "WORK"), help="run the stage alone")
    args = parser.parse_args()
    if args.stage:
        params = replace(load_params().preprocess, near_duplicates=True, contamination_words=0)
        preprocess(Path(args.stage[0]), WorkFolder(Path(args.stage[1])), params, executor=Local(1))
        return
    from benchmarks.machine import machine  # torch, which the stage's processes do without

    found = []
    print(f"{machine()}; one process")
    print(
        f"{'MB':>6} {'documents':>10} {'cpu-s':>7} {'peak MB':>8} {'runs, B/doc':>12} {'rows, B/doc':>12} {'ledger':>7}"
    )
    for mb in sorted(args.mb):
        with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
            found.append(measure(mb, Path(folder)))
        one = found[-1]
        print(
            f"{one.megabytes:6.1f} {one.documents:10,} {one.cpu_seconds:7.2f} {one.peak_mb:8.0f}"
            f" {one.runs / one.documents:12.1f} {one.rows / one.documents:12.1f} {one.ledger / one.documents:7.1f}",
            flush=True,
        )
    small, middle, large = found
    rate = (middle.cpu_seconds - small.cpu_seconds) / (middle.megabytes - small.megabytes)
    constant = small.cpu_seconds - rate * small.megabytes
    entries = entries_per_document() * ENTRY.itemsize
    print("the largest, predicted / measured:")
    print(f"  cpu-s  {constant + rate * large.megabytes:.2f} / {large.cpu_seconds:.2f}")
    print(f"  runs   {entries * large.documents / 1e6:.2f} / {large.runs / 1e6:.2f} MB")
    print(f"  ledger {ledger_bytes() * large.documents / 1e6:.2f} / {large.ledger / 1e6:.2f} MB")
    each = seconds_per_open()
    documents, megabytes = args.documents, args.documents * args.bytes / 1e6
    runs = documents * entries
    print(f"{documents:,.0f} documents of {args.bytes:,.0f} bytes, {megabytes / 1e6:,.1f} TB of text:")
    print(f"  CPU    {rate * megabytes / 3600:,.0f} core-hours")
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
    print_memory(documents)


if __name__ == "__main__":
    main()
