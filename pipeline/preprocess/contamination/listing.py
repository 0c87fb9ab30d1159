"""What is left aside as in common use, for the user to see: by the evaluation records that it is put down to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from pipeline import mapped
from pipeline.arrays import I64
from pipeline.preprocess.contamination.common import LOST, MOST, NGRAMS
from pipeline.preprocess.contamination.lookup import read_ids, read_owners

LISTED = 1000
"""Evaluation records, at most: those first of which most training records have an n-gram."""

COLUMNS = pl.Schema({"evaluation": pl.String(), "ngrams": pl.Int64(), "records": pl.Int64(), "ngram": pl.String()})
"""An evaluation record; how many n-grams put down to it are in common use; of the one that most training records have,
how many these are, and its words."""


def list_common(common: Path, evaluation: Path, shared: Path) -> pl.DataFrame:
    """COLUMNS, with the number of the n-gram in the lookup in the place of its words.

    Args:
        common: what `set_aside` wrote.
        evaluation: what `merge` wrote.
        shared: what `count_shared` wrote.
    """
    lost, most = mapped.read(common / LOST), mapped.read(common / MOST)
    owners = np.empty(0, dtype=np.int64)
    for block in mapped.blocks(len(lost)):
        owners = np.concatenate([owners, np.flatnonzero(lost[block]) + block.start])
        owners = owners[np.argsort(-most[owners].astype(np.int64), kind="stable")[:LISTED]]
    ngrams, counts = mapped.read(common / NGRAMS), mapped.read(shared)
    best = pl.DataFrame(schema={"owner": pl.Int64, "ngram": pl.Int64})
    for block in mapped.blocks(len(ngrams)):
        of = read_owners(evaluation, ngrams[block]).astype(np.int64)
        is_best = np.isin(of, owners) & (counts[ngrams[block]] == most[of])
        more = pl.DataFrame({"owner": of[is_best], "ngram": ngrams[block][is_best]})
        best = pl.concat([best, more]).unique("owner", keep="first", maintain_order=True)
    numbers = {"ngrams": lost[owners].astype(np.int64), "records": most[owners].astype(np.int64)}
    listed = pl.DataFrame({"owner": owners, "evaluation": read_ids(evaluation, owners), **numbers})
    return listed.join(best, on="owner", how="left", maintain_order="left").select(COLUMNS.names())


def first_places(ngrams: I64, found: Sequence[Path]) -> dict[int, pl.DataFrame]:
    """By the number of the shard, the n-grams that none before it has: `ngram`, and a `row` and `place` of it.

    Args:
        ngrams: by their numbers in the lookup.
        found: what `scan` wrote of each shard.
    """
    first, left = dict[int, pl.DataFrame](), ngrams
    for index, path in enumerate(found):
        if not len(left):
            break
        hits = np.load(path, mmap_mode="r")
        hits = hits[np.isin(hits["ngram"], left)]
        table = pl.DataFrame({name: hits[name].astype(np.int64) for name in ("ngram", "row", "place")})
        if len(hits):
            first[index] = table.unique("ngram", keep="first", maintain_order=True)
            left = np.setdiff1d(left, hits["ngram"])
    return first


def with_words(
    listed: pl.DataFrame, places: Mapping[int, pl.DataFrame], quoted: Sequence[pl.DataFrame]
) -> pl.DataFrame:
    """COLUMNS of what `list_common` gave.

    Args:
        places: what `first_places` gave.
        quoted: what `quote` gave of each.
    """
    spelled = [
        pl.DataFrame({"number": own["ngram"], "ngram": words["ngram"]})
        for own, words in zip(places.values(), quoted, strict=True)
    ]
    if not spelled:
        return COLUMNS.to_frame()
    numbered = listed.rename({"ngram": "number"})
    return numbered.join(pl.concat(spelled), on="number", how="left", maintain_order="left").select(COLUMNS.names())
