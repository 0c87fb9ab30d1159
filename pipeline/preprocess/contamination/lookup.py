"""The n-grams of all evaluation records, sorted, on disk: what a shard looks up touches few pages of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pipeline.preprocess.words import Ints
from pipeline.shards.tables import write_table

HASHES, OWNERS, RECORDS = "hashes.npy", "owners.npy", "records.parquet"


def write_lookup(found: pl.DataFrame, folder: Path) -> None:
    """Write the n-grams of evaluation records; one that several have is put down to the first.

    Args:
        found: `hash` UInt64, `evaluation` String: the id of the record.
        folder: new.
    """
    folder.mkdir(parents=True)
    records = found.select(pl.col("evaluation").unique(maintain_order=True)).with_row_index("owner")
    first = found.unique("hash", keep="first", maintain_order=True).sort("hash")
    owners = first.join(records, on="evaluation", how="left", maintain_order="left")["owner"]
    np.save(folder / HASHES, first["hash"].to_numpy())
    np.save(folder / OWNERS, owners.to_numpy())
    write_table(records.select("evaluation"), folder / RECORDS)


def look_up(folder: Path, hashes: np.ndarray) -> tuple[Ints, pl.Series]:
    """Which of `hashes` (n,) uint64 are in what `write_lookup` wrote into `folder`.

    Returns:
        Their places in `hashes`, (hits,), and of each the id of the evaluation record.
    """
    known = np.load(folder / HASHES, mmap_mode="r")
    places = np.minimum(np.searchsorted(known, hashes), max(len(known) - 1, 0))
    hits = np.flatnonzero(known[places] == hashes) if len(known) else np.empty(0, dtype=np.int64)
    if not len(hits):
        return hits, pl.Series([], dtype=pl.String)
    owners = np.load(folder / OWNERS, mmap_mode="r")[places[hits]]
    return hits, pl.read_parquet(folder / RECORDS, glob=False)["evaluation"].gather(owners)
