"""What decontamination takes of the workers where much is held out, so that the bitmap is too small for it.

    python -m benchmarks.data.scaling_bitmap [--gb 0.1 3 6 12 20 50 100 200] [--mb 32]

Generated prose is looked for in other prose of the same kind. The bitmap has the size that it has for so many GB held
out: the anchors of a part are in it, and other bits are set at random until as many are as those of all would set. The
n-grams to look up are those of the part. Given are the size of the bitmap, the bits that are set, the n-grams that are
hashed and looked up as a share of all, CPU time of `scan` (which reads and prepares the texts) for each MB of text,
the median of three rounds, and the arrays that it holds at the peak, for each MB of a shard.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from benchmarks.data.corpus import prose, write_shards
from pipeline.params import load_params
from pipeline.preprocess.contamination import anchors, lookup
from pipeline.preprocess.contamination.evaluation import Collect, choose, collect
from pipeline.preprocess.contamination.scan import Scan, scan
from pipeline.preprocess.prepare import Preparation
from pipeline.preprocess.words import word_hashes
from pipeline.shards.tables import DOCUMENTS, read_shard

SHARD_MB = 4
AS_IT_IS = Preparation((), ())
BLOCK = 1 << 20
"""Bytes that are drawn; the bitmap has them again and again."""


def all_of(path: Path) -> str:
    """All records of a shard, as a job holds them."""
    return choose(np.ones(read_shard(path, ["id"]).height, dtype=bool))


def hold_out(paths: list[Path], n: int, folder: Path) -> list[Path]:
    """The parts of the lookup, of all records of the shards; it is merged in `folder`."""
    parts = [folder.with_name(f"{folder.name}-{path.stem}") for path in paths]
    for path, part in zip(paths, parts, strict=True):
        part.mkdir()
        collect(Collect(path, DOCUMENTS, AS_IT_IS, all_of(path), n, part))
    lookup.merge(parts, folder)
    return parts


def fill(evaluation: Path, parts: list[Path], count: int) -> tuple[float, float]:
    """Replace the bitmap by what it is with so many anchors; its MB, and the share of its bits that are set."""
    width = anchors.width_for(count)
    chance = -math.expm1(-count / (1 << width))
    block = np.packbits(np.random.default_rng(0).random(8 * BLOCK) < chance)
    made = np.resize(block, (1 << width) >> 3)
    for part in parts:
        made |= anchors.bitmap(np.fromfile(part / lookup.ANCHORS, dtype="<u8"), width, 0, 1 << 64)
    made.tofile(evaluation / lookup.BITMAP)
    return len(made) / 1e6, int(np.bitwise_count(made).sum()) / (1 << width)


def looked_up(job: Scan) -> tuple[int, int]:
    """n-grams that are hashed and looked up, of how many words."""
    words, _ = word_hashes(read_shard(job.path, ["text"])["text"])
    return len(anchors.candidates(job.evaluation / lookup.BITMAP, words, job.n)), len(words)


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, nargs="+", default=[0.1, 3, 6, 12, 20, 50, 100, 200])
    parser.add_argument("--mb", type=float, default=32, help="of what is looked up, and of what it is looked for in")
    args = parser.parse_args()
    from benchmarks.machine import machine  # torch, which the stage does without

    n = load_params().preprocess.contamination_words
    print(f"{machine()}; one process; {args.mb:g} MB of n-grams looked for in {args.mb:g} MB")
    print(
        f"{'GB held out':>11} {'bitmap, MB':>10} {'set':>6} {'looked up':>9} {'CPU ms/MB':>9} {'arrays, MB/MB':>13}"
        f" {'hits':>9}"
    )
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        place = Path(name)
        held_out, searched = (
            write_shards(prose(args.mb, seed)[0], place / f"in-{seed}", max(1, round(args.mb / SHARD_MB)))
            for seed in range(2)
        )
        evaluation = place / "evaluation"
        parts = hold_out(held_out, n, evaluation)
        jobs = [Scan(path, DOCUMENTS, AS_IT_IS, all_of(path), evaluation, n, place / path.stem) for path in searched]
        for job in jobs:
            job.folder.mkdir()
        size = [sum(read_shard(path, ["text"])["text"].str.len_bytes()) for path in held_out]
        bytes_each = sum(size) / sum((part / lookup.ANCHORS).stat().st_size // 8 for part in parts)
        megabytes = sum(sum(read_shard(path, ["text"])["text"].str.len_bytes()) for path in searched) / 1e6
        for gb in args.gb:
            bitmap_mb, is_set = fill(evaluation, parts, int(gb * 1e9 / bytes_each))
            rounds = []
            for _ in range(4):
                start = time.process_time()
                hits = sum(map(scan, jobs))
                rounds.append(time.process_time() - start)
            tracemalloc.start()
            scan(jobs[0])
            peak = tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            found, of = np.sum([looked_up(job) for job in jobs], axis=0)
            print(
                f"{gb:11g} {bitmap_mb:10.0f} {is_set:6.1%} {found / of:9.3%}"
                f" {statistics.median(rounds[1:]) / megabytes * 1e3:9.1f} {peak / (megabytes / len(jobs)):13.1f}"
                f" {hits:9,}",
                flush=True,
            )


if __name__ == "__main__":
    main()
