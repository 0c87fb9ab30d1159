"""Decide about the documents of a folder of shards as ingest writes it, in processes, as preprocess does.

python -m benchmarks.data.judge FOLDER PRESET WORKERS      # prints how many each rule drops, as JSON
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.preprocess.quality import decide, measure, rewrite
from pipeline.shards import Local, read_manifest, shard_names


@dataclass(frozen=True)
class Shard:
    """A shard to decide about."""

    path: Path
    preset: str
    folder: None = None

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        return self.path.name


def judge_shard(job: Shard) -> Counter[str]:
    """How many documents of the shard each rule drops, and how many stay (`kept`)."""
    texts = rewrite(pl.read_parquet(job.path, columns=["text"])["text"], [job.preset])
    reasons = decide(measure(texts, [job.preset]), [job.preset], {})["reason"]
    return Counter(reasons.fill_null("kept").to_list())


def main() -> None:
    """Judge a folder."""
    folder, preset, workers = sys.argv[1:]
    jobs = [Shard(Path(folder, name), preset) for name in shard_names(read_manifest(Path(folder)))]
    total = sum((verdicts for _, verdicts in Local(int(workers)).run(judge_shard, jobs)), Counter())
    print(json.dumps(total))


if __name__ == "__main__":
    main()
