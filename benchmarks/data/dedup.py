"""Deduplication here and in datatrove: speed, memory, and what of the planted duplicates is found.

    python -m benchmarks.data.dedup [--mb 64] [--shards 16] [--workers 2] [--skip-peer]

Both read the same Parquet shards of generated prose with as many processes and write what stays, as Parquet with zstd.
Ours is the whole stage preprocess (cleaning, exact keys, splits, manifest, hashes of every file); datatrove's is its
exact deduplication (3 steps) or MinHash (4 steps, word 5-grams, 14 x 8, English words). Times are of the whole
command, start and imports included, of ours the median of three runs: they are so short that one alone says little.
`near alone` is what near deduplication adds: our stage with it less the stage
without, and datatrove's MinHash less its reading the shards twice and writing them once.

Precision: of the documents that are gone, those of which a copy stays, directly or through other copies, as planted
(exact ones for exact deduplication, near ones too for MinHash). Recall: of the planted pairs of a document and its
copy, exact and near (1% to 10% of the words changed), those of which not both stay; of near ones those that have no
other copy, since one that is gone for that says nothing. What MinHash must find depends on how alike the two are, so
the last table parts the near pairs by the Jaccard similarity of their word 5-grams, and says what 14 x 8 come to on
average, 1 - (1 - s^8)^14.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
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


KINDS = {"exact": ["exact"], "near": ["exact", "near"]}
"""Of planted copies: which each deduplication is to find."""
BOUNDS = (0.5, 0.7, 0.8, 0.9)
"""Of the Jaccard similarities in the last table."""


@dataclass(frozen=True)
class Found:
    """What a deduplication of the corpus came to."""

    gone: int
    precision: float
    pairs: pl.DataFrame
    """`kind`, `similarity`, and whether it is `found`, of each planted pair that counts for recall."""

    def recall(self, kind: str) -> float:
        """Of the pairs of a kind, those found."""
        found = self.pairs.filter(kind=kind)["found"]
        return found.sum() / len(found)


def planted_pairs(documents: pl.DataFrame, planted: pl.DataFrame) -> pl.DataFrame:
    """`id`, `of`, `kind` and `similarity` (Jaccard, of word 5-grams) of each copy and what it is a copy of.

    Recall is that of the pairs that have `counts`: of near ones those without other copies.
    """
    pairs = planted.filter(pl.col("of").is_not_null()).select("id", "of", "kind")
    in_pairs = Counter([*pairs["id"], *pairs["of"]])
    is_alone = pl.Series([in_pairs[copy] == in_pairs[of] == 1 for copy, of in pairs.select("id", "of").iter_rows()])
    texts = dict(documents.iter_rows())
    grams = [(_grams(texts[copy]), _grams(texts[of])) for copy, of in pairs.select("id", "of").iter_rows()]
    similarity = pl.Series([len(a & b) / len(a | b) for a, b in grams])
    is_same = pl.Series([texts[copy] == texts[of] for copy, of in pairs.select("id", "of").iter_rows()])
    kind = pl.when(is_same).then(pl.lit("exact")).otherwise("kind")  # a word may be changed for itself
    return pairs.with_columns(kind=kind, similarity=similarity, counts=is_same | is_alone)


def _grams(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return frozenset(tuple(words[at : at + 5]) for at in range(max(1, len(words) - 4)))


def judge(kept: set[str], documents: pl.Series, pairs: pl.DataFrame, kinds: list[str]) -> Found:
    """Compare the ids that stay with what was planted."""
    of = dict(pairs.filter(pl.col("kind").is_in(kinds)).select("id", "of").iter_rows())
    first: dict[str, str] = {}
    for name in documents:  # in order: a copy comes after what it is a copy of
        first[name] = first[of[name]] if name in of else name
    clusters_left = {first[name] for name in kept}
    gone = [name for name in documents if name not in kept]
    right = sum(first[name] in clusters_left for name in gone)
    both = [copy in kept and original in kept for copy, original in pairs.select("id", "of").iter_rows()]
    return Found(len(gone), right / len(gone), pairs.with_columns(found=~pl.Series(both)).filter("counts"))


def print_near(found: dict[str, Found]) -> None:
    """Print the share of the near pairs that each side finds, by their similarity."""
    print(f"{'near pairs':20} {'pairs':>7} {'14 x 8':>8}" + "".join(f"{name:>12}" for name in found))
    for low, high in pairwise((0, *BOUNDS, 1.01)):
        parts = {
            name: each.pairs.filter(pl.col("kind") == "near", pl.col("similarity").is_between(low, high, closed="left"))
            for name, each in found.items()
        }
        some = next(iter(parts.values()))["similarity"]
        expected = (1 - (1 - some**8) ** 14).mean()
        shares = "".join(f"{part['found'].mean():12.1%}" for part in parts.values())
        print(f"{low:.1f} to {min(high, 1):.1f}{'':10} {len(some):7,} {expected:8.1%}{shares}")


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
            f"{'':20} {'s':>7} {'cpu-s':>7} {'MB/s':>7} {'MB/cpu-s':>9} {'peak MB':>8} {'gone':>7} precision"
            f"  recall: exact    near"
        )
        pairs = planted_pairs(table, planted)
        costs = {}
        near: dict[str, Found] = {}
        for name, script in (("exact", EXACT), ("near", MINHASH)):
            works = [place / f"ours-{name}-{number}" for number in range(ROUNDS)]
            runs = [_ours(place / "in", work, name, args.workers) for work in works]
            costs[f"ours {name}"] = sorted(runs, key=lambda cost: cost.seconds)[ROUNDS // 2]
            outputs = {"ours": works[0] / "done" / "out" / "*"}
            if not args.skip_peer:
                outputs["datatrove"] = place / f"theirs-{name}" / "out"
                costs[f"datatrove {name}"] = run_script(script, place / "in", outputs["datatrove"].parent, *counts)
            for side, folder_of_side in outputs.items():
                near[side] = judge(_kept(folder_of_side), table["id"], pairs, KINDS[name])
                _print(f"{side} {name}", costs[f"{side} {name}"], megabytes, near[side])
        _print("ours near alone", _difference(costs["ours near"], costs["ours exact"]), megabytes)
        if not args.skip_peer:
            copy = run_script(COPY, place / "in", place / "theirs-copy", *counts)
            _print("datatrove near alone", _difference(costs["datatrove near"], copy), megabytes)
        print_near(near)


def _ours(source: Path, work: Path, kind: str, workers: int) -> Cost:
    options = [str(source), str(work), kind, str(workers)]
    return run_measured([sys.executable, "-m", "benchmarks.data.deduplicate", *options])


def _difference(whole: Cost, part: Cost) -> Cost:
    return replace(whole, seconds=whole.seconds - part.seconds, cpu_seconds=whole.cpu_seconds - part.cpu_seconds)


def _kept(folder: Path) -> set[str]:
    """The ids in the files of the folder; its last part may be a pattern."""
    files = folder.parent.glob(f"{folder.name}/*.parquet")
    return {name for file in files for name in pl.read_parquet(file, columns=["id"])["id"]}


def _print(name: str, cost: Cost, megabytes: float, found: Found | None = None) -> None:
    planted = (
        f"{found.gone:7,} {found.precision:9.2%} {found.recall('exact'):14.1%} {found.recall('near'):7.1%}"
        if found
        else ""
    )
    print(
        f"{name:20} {cost.seconds:7.1f} {cost.cpu_seconds:7.1f} {megabytes / cost.seconds:7.2f}"
        f" {megabytes / cost.cpu_seconds:9.2f} {cost.peak_mb:8.0f} {planted}",
        flush=True,
    )


if __name__ == "__main__":
    main()
