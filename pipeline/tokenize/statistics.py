"""The figures of tokens/statistics/, as data/README.md describes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.tokenize.encoded import Encoded

SOURCES = "statistics/sources.csv"
"""Records, bytes and tokens by kind, split and source."""

RECORDS_AT_A_TIME = 1 << 17
"""Whose sources are held in memory, if a shard has no more; Polars takes about as long for one shard as for many."""


def by_source(shards: Sequence[Path], encoded: Encoded, tokens: np.ndarray) -> pl.DataFrame:
    """What each source has in the rows of one kind and split, in the order of the names.

    Args:
        shards: the clean records that `encoded` is of.
        tokens: (records,) int64: of each record, those that are in rows; 0 of one that was dropped.

    Returns:
        `source`, `records`, `bytes`, `tokens`.
    """
    totals: dict[str, np.ndarray] = {}
    for some in _runs(encoded.bounds):
        paths = [shards[index] for index in some]
        here = slice(encoded.bounds[some.start], encoded.bounds[some.stop])
        source = pl.read_parquet(paths, columns=["source"], glob=False)["source"]
        names = source.unique().sort().to_list()
        places = source.cast(pl.Enum(names)).to_physical().to_numpy()
        is_kept = tokens[here] > 0
        sums = np.zeros((len(names), 3), dtype=np.int64)
        for column, values in enumerate((is_kept, encoded.text_bytes[here] * is_kept, tokens[here])):
            np.add.at(sums[:, column], places, values)
        for name, own in zip(names, sums, strict=True):
            totals[name] = totals.get(name, 0) + own
    rows = [(name, *totals[name].tolist()) for name in sorted(totals) if totals[name][0]]
    schema = {"source": pl.String, "records": pl.Int64, "bytes": pl.Int64, "tokens": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")  # of arrays, it would import numpy.ma


def _runs(bounds: np.ndarray) -> Iterator[range]:
    """All shards in order, so many together as are read at a time."""
    first = 0
    while first < len(bounds) - 1:
        end = int(np.searchsorted(bounds, bounds[first] + RECORDS_AT_A_TIME, side="right")) - 1
        yield range(first, max(first + 1, end))
        first = max(first + 1, end)
