"""What the n-grams that a training record shares come to: its share of each evaluation record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.preprocess.contamination.common import is_common, read_lost
from pipeline.preprocess.contamination.lookup import read_ids, read_owners, read_records
from pipeline.preprocess.contamination.scan import spell
from pipeline.shards.tables import write_table

SHARES, WORST = "shares.parquet", "worst.npy"
"""What `shares` gives of a shard; and for each training record in it one of SHARE."""

PAIRS = pl.Schema(
    {"id": pl.String(), "evaluation": pl.String(), "share": pl.Float64(), "ngrams": pl.Int64(), "ngram": pl.String()}
)
"""A training and an evaluation record that share n-grams: the ids, the share of the evaluation record's, in how many
places, and the words of the first."""

SHARE = np.dtype([("row", "<u4"), ("evaluation", "<u4"), ("share", "<f8")])
"""A training record's `row` in the shard, its highest `share`, and the number of the first evaluation record (by id)
that it has so much of."""


@dataclass(frozen=True)
class Weigh:
    """Weigh what `scan` found in a shard of n-grams of `n` words. Write into `folder`."""

    name: str
    """The shard, as an error names it."""
    found: Path
    """What `scan` wrote."""
    evaluation: Path
    """What `merge` wrote."""
    common: Path
    """What `set_aside` wrote."""
    n: int
    folder: Path


def weigh(job: Weigh) -> int:
    """Write the training records and evaluation records that share n-grams; returns how many pairs.

    Where others of an evaluation record's n-grams are in common use, or put down to another record, the share is of
    those that are left less `n` - 1 on either side, or 1 for all: so many there are on the seam of a common system
    prompt and a question.
    """
    shared = shares(job)
    write_table(shared.drop("owner"), job.folder / SHARES)
    highest = shared.filter(pl.col("share") == pl.col("share").max().over("row"))
    worst = highest.unique("row", keep="first", maintain_order=True).select("row", "owner", "share")
    np.save(job.folder / WORST, np.array(worst.rows(), dtype=SHARE))
    return shared.height


def pairs(table: pl.DataFrame, kind: str, shared: Path, n: int) -> pl.DataFrame:
    """PAIRS of a shard, of which `table` has all records, prepared, and `shared` is SHARES."""
    hits = pl.read_parquet(shared, glob=False)
    return hits.with_columns(spell(table, kind, hits["row"], hits["place"], n)).select(PAIRS.names())


def shares(job: Weigh) -> pl.DataFrame:
    """The pairs, by row and id: `row`; `evaluation`, the id, and `owner`, its number; `share`, of its n-grams;
    `ngrams`, how many places of the record are one; `place`, that of the first."""
    found = np.load(job.found, mmap_mode="r")
    ngrams = found["ngram"].astype(np.int64)
    is_rare = ~is_common(job.common, ngrams)
    found, owners = found[is_rare], read_owners(job.evaluation, ngrams[is_rare])
    hits = pl.DataFrame({name: found[name].astype(np.int64) for name in ("row", "place", "places")})
    has = (
        hits.with_columns(owner=owners)
        .group_by("row", "owner")
        .agg(has=pl.len().cast(pl.Int64), ngrams=pl.col("places").sum(), place=pl.col("place").min())
    )
    numbers = has["owner"].to_numpy()
    of_record = read_records(job.evaluation, numbers).with_columns(gone=read_lost(job.common, numbers))
    every, own, gone = of_record
    has = has.with_columns(
        every=every, left=own - gone, rare=every - gone, evaluation=read_ids(job.evaluation, numbers)
    )
    beyond = pl.max_horizontal(pl.col("has") - (job.n - 1), 0) / pl.max_horizontal(pl.col("left") - (job.n - 1), 1)
    of_left = pl.when(pl.col("has") == pl.col("rare")).then(1.0).otherwise(beyond)
    is_all = pl.col("left") == pl.col("every")
    return (
        has.with_columns(share=pl.when(is_all).then(pl.col("has") / pl.col("left")).otherwise(of_left))
        .group_by("row", "evaluation")
        .agg(pl.col("owner", "place").min(), pl.col("share").max(), pl.col("ngrams").sum())
        .sort("row", "evaluation")
    )
