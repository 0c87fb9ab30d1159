"""What is decided over a ledger, without texts: CPU time by the number of sources, and memory by that of the records.

    python -m benchmarks.data.scaling_ledger [--records 300000 3000000] [--sources 1 40 400 4000] [--room-mb MB]

The columns and the pairs of duplicates are made up; the steps are those of the stage (pipeline/preprocess/decide.py),
without decontamination: duplicates, splits, mixing. Each case is a process of its own. With `--room-mb`, what is
resident of the ledger's files is written back and dropped whenever it comes to so much, as if there were no more memory
for it: what is wanted again is read from the disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.data.anonymous import peak_memory
from benchmarks.data.room import limited
from pipeline import mapped
from pipeline.params import load_params
from pipeline.preprocess.decide import TYING, tie
from pipeline.preprocess.hashes import mix
from pipeline.preprocess.ledger import FREE, Ledger
from pipeline.preprocess.mixing import mix_sources
from pipeline.preprocess.splitting import assign_splits, require_splits
from pipeline.shards.tables import KINDS

TEMPERATURE = 2.0
"""At which no source is written as it is."""
PAIRED = {"contents": 0.1, "bands": 0.1, "groups": 0.05}
"""Pairs of each relation, for each record."""


def make_ledger(folder: Path, records: int, sources: int) -> Ledger:
    """Sources of the same size to within a few, and of each kind one record in two."""
    ledger, rng = Ledger(folder, [0], records), np.random.default_rng(0)
    for rows in ledger.blocks():
        ledger["fixed"][rows] = FREE
        ledger["kind"][rows] = rng.integers(0, len(KINDS), len(rows))
        ledger["source"][rows] = rng.integers(0, sources, len(rows))
        ledger["characters"][rows] = rng.integers(50, 8000, len(rows))
        ledger["group_hash"][rows] = mix(rows.astype(np.uint64))
        ledger["draw"][rows] = mix(ledger["group_hash"][rows])
    return ledger


def write_pairs(path: Path, records: int, share: float) -> Path:
    """Pairs of any two records."""
    rng = np.random.default_rng(len(path.name))
    with path.open("wb") as file:
        count = int(share * records)
        header = {"descr": "<i8", "fortran_order": False, "shape": (count, 2)}
        np.lib.format.write_array_header_1_0(file, header)
        for block in mapped.blocks(count):
            rng.integers(0, records, (block.stop - block.start, 2)).tofile(file)
    return path


def decide(records: int, sources: int, room_mb: float) -> dict[str, float]:
    """Decide over a ledger: seconds of CPU of each step, MB and minutes."""
    params = replace(load_params().preprocess, temperature=TEMPERATURE)
    seconds = {}
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        folder = Path(name)
        ledger = make_ledger(folder, records, sources)
        pairs = {relation: [write_pairs(folder / relation, records, share)] for relation, share in PAIRED.items()}
        began = time.monotonic()
        with limited(folder, room_mb) as room, peak_memory() as memory:
            tying, start = ledger.stays(TYING), time.process_time()
            ties, _ = tie(ledger, lambda file, _: pairs[file], tying, near=True)
            seconds["duplicates"] = time.process_time() - start
            assign_splits(ledger, ties, tying, params)
            seconds["splits"] = time.process_time() - start - seconds["duplicates"]
            mix_sources(ledger, [f"{number:05d}" for number in range(sources)], {}, params)
            seconds["mixing"] = time.process_time() - start - sum(seconds.values())
            require_splits(ledger, params)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    minutes = (time.monotonic() - began) / 60
    figures = {"files": size, "resident": room.peak_mb, "read": room.read_mb, "anonymous": memory.added_mb}
    return {**seconds, **figures, "minutes": minutes}


def main() -> None:
    """Print a row for each number of records and sources."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[300_000, 3_000_000])
    parser.add_argument("--sources", type=int, nargs="+", default=[1, 40, 400, 4000])
    parser.add_argument("--room-mb", type=float, default=float("inf"))
    parser.add_argument("--case", nargs=2, type=int, metavar=("RECORDS", "SOURCES"), help="decide over one ledger")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(decide(*args.case, args.room_mb)))
        return
    print("CPU seconds of duplicates, splits and mixing; MB of the ledger and the pairs on disk, at most resident of")
    print("them, read from the disk, and anonymous memory on top of what the process began with; minutes")
    header = ("duplicates", "splits", "mixing", "files", "resident", "read", "anonymous", "minutes")
    print(f"{'records':>12} {'sources':>8}" + "".join(f"{name:>11}" for name in header), flush=True)
    for records in args.records:
        for sources in args.sources:
            options = ["--room-mb", str(args.room_mb), "--case", str(records), str(sources)]
            command = [sys.executable, "-m", "benchmarks.data.scaling_ledger", *options]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            cells = "".join(f"{found[name]:11,.{0 if found[name] >= 100 else 2}f}" for name in header)
            print(f"{records:12,} {sources:8,}{cells}", flush=True)


if __name__ == "__main__":
    main()
