"""Deduplication here and in datatrove: speed, memory, and what of the planted duplicates is found.

    python -m benchmarks.data.dedup [--mb 64] [--shards 16] [--workers 2] [--skip-peer]

Both read the same Parquet shards of generated prose with as many processes and write what stays, as Parquet with zstd.
Ours is the whole stage preprocess (cleaning, exact keys, splits, manifest, hashes of every file); datatrove's is its
exact deduplication (3 steps) or MinHash (4 steps, word 5-grams, 14 x 8, English words). Times are of the whole
command, start and imports included.

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
from pipeline.params import load_params
from pipeline.preprocess.run import preprocess
from pipeline.shards import Local
from pipeline.work import WorkFolder

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


def stage(source: Path, work: Path, near: bool, workers: int) -> None:
    """Run preprocess with the parameters of params.yaml but for `near_duplicates`."""
    params = replace(load_params().preprocess, near_duplicates=near)
    preprocess(source, WorkFolder(work), params, executor=Local(workers))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=64)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--skip-peer", action="store_true")
    parser.add_argument("--stage", nargs=3, metavar=("SOURCE", "WORK", "exact|near"), help="run ours alone")
    args = parser.parse_args()
    if args.stage:
        stage(Path(args.stage[0]), Path(args.stage[1]), args.stage[2] == "near", args.workers)
        return
    from benchmarks.machine import machine  # torch, which the stage's processes do without

    if not args.skip_peer:
        environment()
    with tempfile.TemporaryDirectory(prefix="dedup-") as folder:
        place = Path(folder)
        table, planted = prose(args.mb)
        write_shards(table, place / "in", args.shards)
        megabytes = table["text"].str.len_bytes().sum() / 1e6
        print(f"{machine()}; {table.height:,} documents, {megabytes:.1f} MB, {args.workers} workers")
        print(
            f"{'':18} {'s':>7} {'cpu-s':>7} {'MB/s':>7} {'MB/cpu-s':>9} {'peak MB':>8} {'gone':>7} exact  near  wrong"
        )
        for name, script in (("exact", EXACT), ("near", MINHASH)):
            work = place / f"ours-{name}"
            options = ["--stage", str(place / "in"), str(work), name, "--workers", str(args.workers)]
            cost = run_measured([sys.executable, "-m", "benchmarks.data.dedup", *options])
            _print(f"ours {name}", cost, megabytes, _found(work / "done" / "out" / "*", table, planted))
            if not args.skip_peer:
                work = place / f"theirs-{name}"
                counts = [str(args.shards), str(args.workers)]
                cost = run_script(script, place / "in", work, *counts)
                _print(f"datatrove {name}", cost, megabytes, _found(work / "out", table, planted))


def _found(folder: Path, table: pl.DataFrame, planted: pl.DataFrame) -> Found:
    files = sorted(folder.parent.glob(f"{folder.name}/*.parquet"))
    kept = pl.concat(pl.read_parquet(file, columns=["id"]) for file in files)["id"]
    return judge(kept, table["id"], planted)


def _print(name: str, cost: Cost, megabytes: float, found: Found) -> None:
    print(
        f"{name:18} {cost.seconds:7.1f} {cost.cpu_seconds:7.1f} {megabytes / cost.seconds:7.2f}"
        f" {megabytes / cost.cpu_seconds:9.2f} {cost.peak_mb:8.0f} {found.gone:7,}"
        f" {found.exact:5.1%} {found.near:5.1%} {found.wrong:5}",
        flush=True,
    )


if __name__ == "__main__":
    main()
