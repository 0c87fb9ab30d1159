"""Look for the n-grams of the evaluation sets in training records, and read their words out again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.preprocess.contamination.evaluation import chosen
from pipeline.preprocess.contamination.lookup import look_up
from pipeline.preprocess.ngrams import ngram_hashes
from pipeline.preprocess.prepare import Preparation, prepare_table, whole_texts
from pipeline.preprocess.words import words
from pipeline.shards.tables import write_table

FOUND = "found.parquet"
"""`row` of the shard, `ngram` (its place in the lookup), its first `place` in the record, and how many `places` are it;
by row and place."""


@dataclass(frozen=True)
class Scan:
    """Look at some records of a shard; `rows` is what `choose` gave. Write into `folder`."""

    path: Path
    kind: str
    preparation: Preparation
    rows: str
    evaluation: Path
    """What `merge` wrote."""
    n: int
    folder: Path

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        return self.path.name


@dataclass(frozen=True)
class Quote:
    """Read the words of n-grams out of a shard: at `place` of `row`, for each row of `hits`."""

    path: Path
    kind: str
    preparation: Preparation
    hits: pl.DataFrame
    n: int
    folder: None = None

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        return self.path.name


def scan(job: Scan) -> None:
    """Write which n-grams each record shares with the evaluation sets."""
    rows = chosen(job.rows)
    table, _ = prepare_table(pl.read_parquet(job.path, glob=False)[rows], job.kind, job.preparation)
    hashes, offsets = ngram_hashes(whole_texts(table, job.kind), job.n, whole=False)
    hits, ngrams = look_up(job.evaluation, hashes)
    owners = np.searchsorted(offsets, hits, side="right") - 1
    found = pl.DataFrame({"row": rows[owners], "ngram": ngrams, "place": hits - offsets[owners]})
    found = found.group_by("row", "ngram").agg(pl.col("place").min(), places=pl.len().cast(pl.Int64))
    write_table(found.sort("row", "place"), job.folder / FOUND)


def quote(job: Quote) -> pl.DataFrame:
    """For each row of `hits`, the `id` of its record and the words, `ngram`."""
    rows = job.hits["row"].unique().sort()
    table, _ = prepare_table(pl.read_parquet(job.path, glob=False)[rows], job.kind, job.preparation)
    spelled = table.select("id", words=words(whole_texts(table, job.kind)))[rows.search_sorted(job.hits["row"])]
    ngram = pl.col("words").list.slice("place", job.n).list.join(" ")
    return spelled.with_columns(job.hits["place"]).select("id", ngram=ngram)
