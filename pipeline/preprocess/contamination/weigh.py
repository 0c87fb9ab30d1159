"""What the n-grams that a training record shares come to: its share of each evaluation record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.preprocess.contamination.lookup import read_in_sets, read_owners, read_records

COMMON = 10
"""n-grams that more training records have are in common use and tell nothing (Brown et al. 2020, appendix C); but not
what one record alone of the user's evaluation sets has, which may be copied often."""


def weigh(evaluation: Path, found: list[Path], n: int) -> Iterator[pl.DataFrame]:
    """For each shard, the training records and evaluation records that share n-grams, by row and id.

    Args:
        evaluation: what `merge` wrote.
        found: what `scan` wrote of each shard.
        n: words of an n-gram.

    Yields:
        `row`; `evaluation`, the id; `share`, of its n-grams; `ngrams`, how many places of the record are one; `place`,
        that of the first. Where others of its n-grams are in common use, or put down to another record, the share is
        of those that are left less `n` - 1 on either side, or 1 for all: so many there are on the seam of a common
        system prompt and a question.
    """
    if not found:
        return
    shared = pl.scan_parquet(found, glob=False).group_by("ngram").len()
    common = shared.filter(pl.col("len") > COMMON).select("ngram").collect(engine="streaming")
    common = common.filter(read_in_sets(evaluation, common["ngram"].to_numpy()) != 1)
    records = read_records(evaluation)
    lost = np.bincount(read_owners(evaluation, common["ngram"].to_numpy()), minlength=records.height)
    for path in found:
        hits = pl.read_parquet(path, glob=False).join(common, on="ngram", how="anti")
        owners = read_owners(evaluation, hits["ngram"].to_numpy())
        hits = hits.with_columns(owner=owners, evaluation=records["evaluation"].gather(owners))
        every, own, gone = (values.gather(owners) for values in (records["all"], records["owned"], pl.Series(lost)))
        hits = hits.with_columns(
            every=every, left=own - gone, rare=every - gone, has=pl.len().cast(pl.Int64).over("row", "owner")
        )
        beyond = pl.max_horizontal(pl.col("has") - (n - 1), 0) / pl.max_horizontal(pl.col("left") - (n - 1), 1)
        of_left = pl.when(pl.col("has") == pl.col("rare")).then(1.0).otherwise(beyond)
        is_all = pl.col("left") == pl.col("every")
        yield (
            hits.with_columns(share=pl.when(is_all).then(pl.col("has") / pl.col("left")).otherwise(of_left))
            .group_by("row", "evaluation")
            .agg(pl.col("share").max(), ngrams=pl.col("places").sum(), place=pl.col("place").min())
            .sort("row", "evaluation")
        )
