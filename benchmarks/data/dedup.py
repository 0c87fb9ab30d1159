"""Deduplication here and in datatrove: speed, memory, and what of the planted duplicates is found.

    python -m benchmarks.data.dedup [--mb 64] [--shards 16] [--workers 2] [--skip-peer]

Both read the same Parquet shards of generated prose with as many processes and write what stays, as Parquet with zstd.
Ours is the whole stage preprocess (cleaning, exact keys, splits, manifest, hashes of every file); datatrove's is its
exact deduplication (3 steps) or MinHash (4 steps, word 5-grams, 14 x 8, English words). Times are of the whole
command, start and imports included, of ours the median of three runs: they are so short that one alone says little.
`near alone` is what near deduplication adds: our stage with it less the stage
without, and datatrove's MinHash less its reading the shards twice and writing them once.

Of a planted pair of copies, `found` means that not both stay. `wrong` are documents that are gone though no copy of
them, nor an original, was planted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from benchmarks.data.corpus import prose, write_shards
from benchmarks.data.peers import Cost, environment, run_measured, run_script
from benchmarks.machine import machine

ROUNDS = 3
"""Of ours."""

READ = 'ParquetReader(source, glob_pattern="documents-*.parquet")'
WRITE = 'ParquetWriter(f"{work}/out", output_filename="${rank}.parquet", compression="zstd")'
START = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import *
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter

source, work, tasks, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def content(document):
    return document.text

def run(name, steps, tasks):
    LocalPipelineExecutor(steps, tasks=tasks, workers=workers, logging_dir=f"{work}/logs/{name}").run()

if __name__ == "__main__":
"""
EXACT = f"""{START}
    config = ExactDedupConfig(content_getter=content)
    run("1", [{READ}, ExactDedupSignature(f"{{work}}/sigs", config, finder_workers=workers)], tasks)
    run("2", [ExactFindDedups(f"{{work}}/sigs", f"{{work}}/dups", config)], workers)
    run("3", [{READ}, ExactDedupFilter(f"{{work}}/dups", config), {WRITE}], tasks)
"""
MINHASH = f"""{START}
    run("1", [{READ}, MinhashDedupSignature(f"{{work}}/sigs")], tasks)
    run("2", [MinhashDedupBuckets(f"{{work}}/sigs", f"{{work}}/buckets")], 14)
    run("3", [MinhashDedupCluster(f"{{work}}/buckets", f"{{work}}/remove")], 1)
    run("4", [{READ}, MinhashDedupFilter(f"{{work}}/remove"), {WRITE}], tasks)
"""
COPY = f"""{START}
    run("1", [{READ}], tasks)
    run("2", [{READ}, {WRITE}], tasks)
"""


@dataclass(frozen=True)
class Found:
    """What a deduplication of the corpus came to."""

    gone: int
    exact: float
    near: float
    wrong: int


def judge(kept: pl.Series, documents: pl.Series, planted: pl.DataFrame) -> Found:
    """Compare the ids that stay with what was planted."""
    pairs = planted.filter(pl.col("of").is_not_null())
    stays = {name: pairs[name].is_in(kept.implode()) for name in ("id", "of")}
    told = pairs.with_columns(found=~(stays["id"] & stays["of"])).group_by("kind").agg(pl.col("found").mean())
    shares = dict(told.iter_rows())
    gone = documents.filter(~documents.is_in(kept.implode()))
    involved = pl.concat([pairs["id"], pairs["of"]])
    return Found(len(gone), shares["exact"], shares["near"], int((~gone.is_in(involved.implode())).sum()))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=64)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--skip-peer", action="store_true")
    args = parser.parse_args()
    if not args.skip_peer:
        environment()
    with tempfile.TemporaryDirectory(prefix="dedup-") as folder:
        place = Path(folder)
        table, planted = prose(args.mb)
        write_shards(table, place / "in", args.shards)
        counts = [str(args.shards), str(args.workers)]
        megabytes = table["text"].str.len_bytes().sum() / 1e6
        print(f"{machine()}; {table.height:,} documents, {megabytes:.1f} MB, {args.workers} workers")
        print(
            f"{'':20} {'s':>7} {'cpu-s':>7} {'MB/s':>7} {'MB/cpu-s':>9} {'peak MB':>8} {'gone':>7} exact  near  wrong"
        )
        costs = {}
        for name, script in (("exact", EXACT), ("near", MINHASH)):
            works = [place / f"ours-{name}-{number}" for number in range(ROUNDS)]
            runs = [_ours(place / "in", work, name, args.workers) for work in works]
            costs[f"ours {name}"] = sorted(runs, key=lambda cost: cost.seconds)[ROUNDS // 2]
            found = _found(works[0] / "done" / "out" / "*", table, planted)
            _print(f"ours {name}", costs[f"ours {name}"], megabytes, found)
            if not args.skip_peer:
                work = place / f"theirs-{name}"
                costs[f"datatrove {name}"] = run_script(script, place / "in", work, *counts)
                _print(f"datatrove {name}", costs[f"datatrove {name}"], megabytes, _found(work / "out", table, planted))
        _print("ours near alone", _difference(costs["ours near"], costs["ours exact"]), megabytes)
        if not args.skip_peer:
            copy = run_script(COPY, place / "in", place / "theirs-copy", *counts)
            _print("datatrove near alone", _difference(costs["datatrove near"], copy), megabytes)


def _ours(source: Path, work: Path, kind: str, workers: int) -> Cost:
    options = [str(source), str(work), kind, str(workers)]
    return run_measured([sys.executable, "-m", "benchmarks.data.deduplicate", *options])


def _difference(whole: Cost, part: Cost) -> Cost:
    return replace(whole, seconds=whole.seconds - part.seconds, cpu_seconds=whole.cpu_seconds - part.cpu_seconds)


def _found(folder: Path, table: pl.DataFrame, planted: pl.DataFrame) -> Found:
    files = sorted(folder.parent.glob(f"{folder.name}/*.parquet"))
    kept = pl.concat(pl.read_parquet(file, columns=["id"]) for file in files)["id"]
    return judge(kept, table["id"], planted)


def _print(name: str, cost: Cost, megabytes: float, found: Found | None = None) -> None:
    planted = f"{found.gone:7,} {found.exact:5.1%} {found.near:5.1%} {found.wrong:5}" if found else ""
    print(
        f"{name:20} {cost.seconds:7.1f} {cost.cpu_seconds:7.1f} {megabytes / cost.seconds:7.2f}"
        f" {megabytes / cost.cpu_seconds:9.2f} {cost.peak_mb:8.0f} {planted}",
        flush=True,
    )


if __name__ == "__main__":
    main()
