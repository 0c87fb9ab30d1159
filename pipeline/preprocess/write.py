"""The last step: write the records of a shard to their splits, and those that are dropped to a table of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from pipeline.preprocess.contamination.weigh import pairs
from pipeline.preprocess.prepare import Preparation, prepare, whole_texts
from pipeline.shards.tables import SPLITS, characters, write_table

DROPPED, HITS = "dropped.parquet", "hits.parquet"
EXCERPT = 200
"""Characters of a dropped record's text that go with it."""


@dataclass(frozen=True)
class Write:
    """Write the records of one shard into `folder`, as `decisions` has it."""

    path: Path
    kind: str
    preparation: Preparation
    decisions: Path
    """A row per record: `split`, `copies`, `reason`, `detail`."""
    shares: Path | None
    """What it shares with evaluation records, in n-grams of `n` words (`weigh`), if anything."""
    n: int
    folder: Path

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        return self.path.name


class FileFigures(NamedTuple):
    """Of a file that was written."""

    records: int
    characters: int


def write_shard(job: Write) -> dict[str, FileFigures]:
    """Write a file for each split that has records of the shard, `dropped.parquet`, and `hits.parquet` if it shares
    anything with evaluation records: the figures of each split."""
    table, _ = prepare(job.path, job.kind, job.preparation)
    if job.shares:
        write_table(pairs(table, job.kind, job.shares, job.n), job.folder / HITS)
    decided = table.drop("split").hstack(pl.read_parquet(job.decisions, glob=False))
    _write_dropped(decided.filter(pl.col("reason").is_not_null()), job)
    files = {}
    written = [column for column in table.columns if column != "split"]
    for split in SPLITS:
        part = _repeated(decided.filter(pl.col("reason").is_null() & (pl.col("split") == split)))
        if part.height:
            write_table(part.select(written), job.folder / f"{split}.parquet")
            files[split] = FileFigures(part.height, part.select(characters(job.kind).sum()).item())
    return files


def _repeated(part: pl.DataFrame) -> pl.DataFrame:
    """The rows as often as `copies` says, one after the other; all but the first have their number in the id."""
    if (part["copies"] == 1).all():
        return part
    copy = pl.col("copy")
    numbered = part.with_columns(copy=pl.int_ranges(1, pl.col("copies").cast(pl.Int64) + 1)).explode("copy")
    return numbered.with_columns(id=pl.when(copy > 1).then(pl.format("{}#{}", "id", "copy")).otherwise("id"))


def _write_dropped(dropped: pl.DataFrame, job: Write) -> None:
    excerpts = whole_texts(dropped, job.kind).str.slice(0, EXCERPT).alias("excerpt")
    columns = ["id", "source", pl.lit(job.kind).alias("kind"), "group", "reason", "detail", excerpts]
    write_table(dropped.select(columns), job.folder / DROPPED)
