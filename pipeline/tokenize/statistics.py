"""The figures of tokens/statistics/, as data/README.md describes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

SOURCES = "statistics/sources.csv"
"""Records, bytes and tokens by kind, split and source."""

SHARDS_AT_A_TIME = 64
"""Whose records' sources are held in memory; Polars takes about as long for one as for all of these."""


def by_source(shards: Sequence[Path], tokens: np.ndarray, text_bytes: np.ndarray) -> pl.DataFrame:
    """What each source has in the rows of one kind and split, in the order of the names.

    Args:
        shards: the clean records, shard by shard in the order of the arrays.
        tokens: (records,) int64: of each record, those that are in rows; 0 of one that was dropped.
        text_bytes: (records,) int64: of each record's text.

    Returns:
        `source`, `records`, `bytes`, `tokens`.
    """
    parts = []
    at = 0
    for first in range(0, len(shards), SHARDS_AT_A_TIME):
        source = pl.read_parquet(list(shards[first : first + SHARDS_AT_A_TIME]), columns=["source"], glob=False)[
            "source"
        ]
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
