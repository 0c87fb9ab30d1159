"""Look for the n-grams of the evaluation sets in training records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.preprocess.contamination.evaluation import chosen
from pipeline.preprocess.contamination.lookup import look_up
from pipeline.preprocess.ngrams import ngram_hashes
from pipeline.preprocess.prepare import Preparation, prepare, whole_texts
from pipeline.preprocess.words import words

HITS = pl.Schema(
    {"row": pl.Int64(), "id": pl.String(), "evaluation": pl.String(), "ngrams": pl.Int64(), "ngram": pl.String()}
)
"""A record and an evaluation record that share n-grams: how many places of the record are one, and the first's words.

An n-gram of several evaluation records is put down to the first of them.
"""


@dataclass(frozen=True)
class Scan:
    """Look at some records of a shard; `rows` is what `choose` gave."""

    path: Path
    kind: str
    preparation: Preparation
    rows: str
    evaluation: Path
    """What `merge` wrote."""
    n: int
    folder: None = None

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        return self.path.name


def scan(job: Scan) -> pl.DataFrame:
    """The hits of a shard, in the order of its records and of the evaluation records' ids."""
    table, _ = prepare(job.path, job.kind, job.preparation)
    rows = chosen(job.rows)
    table = table[rows]
    texts = whole_texts(table, job.kind)
    hashes, offsets = ngram_hashes(texts, job.n, whole=False)
    hits, evaluations = look_up(job.evaluation, hashes)
    owners = np.searchsorted(offsets, hits, side="right") - 1
    found = pl.DataFrame(
        {
            "row": rows[owners],
            "id": table["id"].gather(owners),
            "evaluation": evaluations,
            "place": hits - offsets[owners],
            "text": texts.gather(owners),
        }
    )
    first = (
        found.group_by("row", "id", "evaluation")
        .agg(pl.len().cast(pl.Int64).alias("ngrams"), pl.col("place", "text").sort_by("place").first())
        .sort("row", "evaluation")
    )
    ngram = pl.col("words").list.slice("place", job.n).list.join(" ")
    return first.with_columns(words=words(first["text"])).with_columns(ngram=ngram).select(HITS.names())
