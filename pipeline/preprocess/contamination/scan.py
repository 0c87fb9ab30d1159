"""Look for the n-grams of the evaluation sets in training records, and read their words out again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.arrays import I64
from pipeline.preprocess.contamination.anchors import candidates
from pipeline.preprocess.contamination.evaluation import chosen
from pipeline.preprocess.contamination.lookup import BITMAP, look_up
from pipeline.preprocess.ngrams import ngrams_at
from pipeline.preprocess.prepare import Preparation, prepare_table, whole_texts
from pipeline.preprocess.words import word_hashes, words
from pipeline.shards.tables import DOCUMENTS, read_shard

FOUND = "found.npy"
HIT = np.dtype([("row", "<u4"), ("ngram", "<u8"), ("place", "<u4"), ("places", "<u4")])
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


def scan(job: Scan) -> int:
    """Write which n-grams each record shares with the evaluation sets; returns how many of each record, summed."""
    rows = chosen(job.rows)
    hashes, lengths = word_hashes(whole_texts(read_prepared(job.path, job.kind, job.preparation, rows), job.kind))
    starts = candidates(job.evaluation / BITMAP, hashes, job.n)
    ends = np.cumsum(lengths)
    records = np.searchsorted(ends, starts, side="right")
    is_within = starts + job.n <= ends[records]
    starts, records = starts[is_within], records[is_within]
    hits, ngrams = look_up(job.evaluation, ngrams_at(hashes, starts, job.n))
    starts, records = starts[hits], records[hits]
    found = pl.DataFrame({"row": rows[records], "ngram": ngrams, "place": starts - (ends - lengths)[records]})
    found = found.group_by("row", "ngram", maintain_order=True).agg(pl.col("place").first(), places=pl.len())
    np.save(job.folder / FOUND, _structured(found))
    return found.height


def quote(job: Quote) -> pl.DataFrame:
    """For each row of `hits`, the `id` of its record and the words, `ngram`."""
    rows = job.hits["row"].unique().sort()
    table = read_prepared(job.path, job.kind, job.preparation, rows.to_numpy())
    return spell(table, job.kind, rows.search_sorted(job.hits["row"]), job.hits["place"], job.n)


def spell(table: pl.DataFrame, kind: str, rows: pl.Series, places: pl.Series, n: int) -> pl.DataFrame:
    """The `id` of each of these rows of a prepared table, and the `n` words at its place, `ngram`."""
    own = rows.unique().sort()
    spelled = table[own].select("id", words=words(whole_texts(table[own], kind)))[own.search_sorted(rows)]
    return spelled.with_columns(places.alias("place")).select(
        "id", ngram=pl.col("words").list.slice("place", n).list.join(" ")
    )


def read_prepared(path: Path, kind: str, preparation: Preparation, rows: I64) -> pl.DataFrame:
    """The ids and prepared texts of some records of a shard."""
    columns = ["id", "text" if kind == DOCUMENTS else "messages"]
    return prepare_table(read_shard(path, columns)[rows], kind, preparation)[0]


def _structured(found: pl.DataFrame) -> np.ndarray[Any, Any]:
    hits = np.empty(found.height, dtype=HIT)
    for name in HIT.names or ():
        hits[name] = found[name].to_numpy()
    return hits
