"""The figures of tokens/statistics/, as data/README.md describes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

SOURCES = "statistics/sources.csv"
"""Records, bytes and tokens by kind, split and source."""


def by_source(shards: Sequence[Path], tokens: np.ndarray, text_bytes: np.ndarray) -> pl.DataFrame:
    """What each source has in the rows of one kind and split, in the order of the names; a shard's names at a time.

    Args:
        shards: the clean records, shard by shard in the order of the arrays.
        tokens: (records,) int64: of each record, those that are in rows; 0 of one that was dropped.
        text_bytes: (records,) int64: of each record's text.

    Returns:
        `source`, `records`, `bytes`, `tokens`.
    """
    parts = []
    at = 0
    for shard in shards:
        source = pl.read_parquet(shard, columns=["source"])["source"]
        here = slice(at, at + len(source))
        parts.append(
            pl.DataFrame({"source": source, "bytes": text_bytes[here], "tokens": tokens[here]})
            .filter(pl.col("tokens") > 0)
            .group_by("source")
            .agg(pl.len().cast(pl.Int64).alias("records"), pl.col("bytes", "tokens").sum())
        )
        at += len(source)
    assert at == len(tokens)
    return pl.concat(parts).group_by("source").sum().sort("source")
