"""Preprocess in three steps: survey each shard, decide over all records, write each shard.

Surveying and writing clean a shard each for itself: cleaning twice is cheaper than keeping a copy. What goes
between them is one short row per record. Both keep what is done, so that a stopped stage goes on shard by shard.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline.preprocess.cleaning import clean, judge
from pipeline.preprocess.duplicates import content_keys, mark_duplicates
from pipeline.preprocess.splitting import assign_splits
from pipeline.shards import Kept, run_shards, verify_manifest, write_manifest
from pipeline.shards.tables import KINDS, SPLITS, characters, columns, describe, write_table
from pipeline.work import WorkFolder, link_tree, publish_directory

if TYPE_CHECKING:
    from pipeline.params import PreprocessParams

DROPPED = "dropped.parquet"


@dataclass(frozen=True)
class Survey:
    """Look at the records of one shard of `kind`."""

    path: Path
    kind: str
    min_chars: int
    max_chars: int
    folder: None = None

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        return self.path.name


@dataclass(frozen=True)
class Write:
    """Write the records of one shard into the splits of `folder`; `splits` has one for each row, or null."""

    path: Path
    kind: str
    splits: pl.Series
    folder: Path

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        return self.path.name


def preprocess(source: Path, work: WorkFolder, params: PreprocessParams, *, workers: int) -> dict[str, float]:
    """Clean, bound, deduplicate and split what ingest wrote; `work.out` is described in data/README.md.

    Args:
        source: the directory that ingest wrote.
        params: the section `preprocess` of params.yaml.
        workers: how many processes; 0 for one per core. The bytes do not depend on it.

    Returns:
        The totals, for the metrics.

    Raises:
        ValueError: `source` is incomplete, or a wanted split would be empty.
    """
    surveys = [
        Survey(source / name, name.partition("-")[0], params.min_chars, params.max_chars)
        for name in verify_manifest(source)["files"]
        if name.startswith(KINDS)
    ]
    kept = Kept(work.scratch / "surveyed", work.progress)
    surveyed = run_shards(survey_shard, surveys, title="preprocess: survey", workers=workers, kept=kept)
    records = pl.concat([table.with_columns(shard=pl.lit(index)) for index, table in enumerate(surveyed)])
    records = assign_splits(mark_duplicates(records), params)
    dropped = records.filter(pl.col("reason").is_not_null())
    splits = records.with_columns(split=pl.when(pl.col("reason").is_null()).then("split"))
    of_shard = splits.partition_by("shard", as_dict=True)
    jobs = [
        Write(survey.path, survey.kind, of_shard[(index,)]["split"], work.scratch / "shards" / survey.path.stem)
        for index, survey in enumerate(surveys)
    ]
    kept = Kept(work.scratch / "written", work.progress)
    written = run_shards(write_shard, jobs, title="preprocess: write", workers=workers, kept=kept)
    files = {name: figures for shard in written for name, figures in shard.items()}
    facts = _facts(files, dropped, records.height)
    with publish_directory(work.out) as building:
        for job in jobs:
            link_tree(job.folder, building)
        write_table(dropped.select("id", "kind", "group", "reason", "detail"), building / DROPPED)
        counts = {name: figures["records"] for name, figures in files.items()}
        write_manifest(building, {**counts, DROPPED: dropped.height}, facts)
    return _summary(facts)


def survey_shard(job: Survey) -> pl.DataFrame:
    """One row per record: `id`, `kind`, `group`, `split`, `reason` and `detail` of a drop, else `key`."""
    table = clean(pl.read_parquet(job.path), job.kind)
    verdicts = judge(table, job.kind, job.min_chars, job.max_chars)
    keys = pl.Series("key", content_keys(table, job.kind), dtype=pl.Binary)
    return table.select("id", pl.lit(job.kind).alias("kind"), "group", "split").with_columns(
        verdicts["reason"], verdicts["detail"], pl.when(verdicts["reason"].is_null()).then(keys).alias("key")
    )


def write_shard(job: Write) -> dict[str, dict[str, int]]:
    """Write a shard's records to their splits: the records and characters of each file."""
    table = clean(pl.read_parquet(job.path), job.kind).with_columns(job.splits)
    files = {}
    for split in SPLITS:
        part = table.filter(pl.col("split") == split).drop("split")
        if part.height:
            name = f"{split}/{job.path.name}"
            (job.folder / split).mkdir()
            write_table(part, job.folder / name)
            text = part.select(characters(job.kind).sum()).item()
            files[name] = {"records": part.height, "characters": text}
    return files


def _facts(files: dict[str, dict[str, int]], dropped: pl.DataFrame, records_in: int) -> dict[str, Any]:
    splits: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    for name, figures in sorted(files.items()):
        split, file = name.split("/")
        totals = splits[split].setdefault(file.partition("-")[0], {"records": 0, "characters": 0})
        for figure, count in figures.items():
            totals[figure] += count
    records_out = sum(figures["records"] for figures in files.values())
    assert records_in == records_out + dropped.height, "a record is written or dropped, once"
    return {
        "records_in": records_in,
        "records_out": records_out,
        "dropped": dict(dropped.group_by("reason").len().sort("reason").iter_rows()),
        "splits": dict(splits),
        "schema": {kind: describe(columns(kind, split=False)) for kind in KINDS},
    }


def _summary(facts: dict[str, Any]) -> dict[str, float]:
    summary = {"records_in": facts["records_in"], "records_out": facts["records_out"]}
    summary |= {f"dropped/{reason}": count for reason, count in facts["dropped"].items()}
    for split, kinds in facts["splits"].items():
        summary |= {f"{split}/{kind}": totals["records"] for kind, totals in kinds.items()}
    return {name: float(value) for name, value in summary.items()}
