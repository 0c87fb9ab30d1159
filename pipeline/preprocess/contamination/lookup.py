"""The n-grams of all evaluation records, sorted, on disk: what a shard looks up touches few pages of it.

Each shard with such records, and each file of evaluation sets, writes its own, sorted (a *part*). The parts are merged
range by range: hashes are as good as random, so that an even cut of the range cuts all parts into even pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.preprocess.words import Ints
from pipeline.shards.tables import join_tables, write_table
from pipeline.splitmix import U64

HASHES, OWNERS, RECORDS = "hashes.u64", "owners.u32", "records.parquet"
"""The first two have an entry for each n-gram, little-endian and nothing else; an owner is a row of the third."""

AT_A_TIME = 1 << 22
"""n-grams of a range, if they are spread evenly; merging takes some 60 bytes for each."""


def write_part(folder: Path, ids: pl.Series, hashes: U64, owners: Ints) -> None:
    """Write the n-grams of some records into `folder`; one that several have is put down to the first.

    Args:
        ids: of the records.
        hashes: (n,) of their n-grams.
        owners: (n,) the place in `ids` of the record that has each.
    """
    hashes, owners = _sorted(hashes, owners)
    hashes.astype("<u8").tofile(folder / HASHES)
    owners.astype("<u4").tofile(folder / OWNERS)
    write_table(pl.DataFrame({"evaluation": ids}), folder / RECORDS)


def merge(parts: Sequence[Path], folder: Path) -> None:
    """Write the n-grams of all parts into `folder`, which is new; one that several have is put down to the first."""
    folder.mkdir(parents=True)
    if parts:
        join_tables([part / RECORDS for part in parts], folder / RECORDS)
    else:
        write_table(pl.DataFrame(schema={"evaluation": pl.String}), folder / RECORDS)
    records = [pl.scan_parquet(part / RECORDS, glob=False).select(pl.len()).collect().item() for part in parts]
    starts = np.cumsum([0, *records]).tolist()
    count = max(1, -(-sum(len(_load(part, HASHES)) for part in parts) // AT_A_TIME))
    with (folder / HASHES).open("wb") as all_hashes, (folder / OWNERS).open("wb") as all_owners:
        for low, high in pairwise(index * 2**64 // count for index in range(count + 1)):
            pieces = [_piece(part, start, low, high - 1) for part, start in zip(parts, starts, strict=False)]
            hashes = np.concatenate([np.empty(0, dtype="<u8"), *(piece[0] for piece in pieces)])
            owners = np.concatenate([np.empty(0, dtype="<u4"), *(piece[1] for piece in pieces)])
            hashes, owners = _sorted(hashes, owners)
            all_hashes.write(hashes.tobytes())
            all_owners.write(owners.tobytes())


def look_up(folder: Path, hashes: U64) -> tuple[Ints, pl.Series]:
    """Which of `hashes` (n,) are in what `merge` wrote into `folder`.

    Returns:
        Their places in `hashes`, (hits,), and of each the id of the evaluation record.
    """
    known = _load(folder, HASHES)
    places = np.minimum(np.searchsorted(known, hashes), max(len(known) - 1, 0))
    hits = np.flatnonzero(known[places] == hashes) if len(known) else np.empty(0, dtype=np.int64)
    if not len(hits):
        return hits, pl.Series([], dtype=pl.String)
    owners = _load(folder, OWNERS)[places[hits]]
    return hits, pl.read_parquet(folder / RECORDS, glob=False)["evaluation"].gather(owners)


def _sorted(hashes: U64, owners: np.ndarray[Any, Any]) -> tuple[U64, np.ndarray[Any, Any]]:
    """By hash, of equal ones the first."""
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    is_first = np.ones(len(hashes), dtype=bool)
    is_first[1:] = hashes[1:] != hashes[:-1]
    return hashes[is_first], owners[order[is_first]]


def _piece(part: Path, start: int, low: int, high: int) -> tuple[U64, np.ndarray[Any, Any]]:
    """The n-grams of a part with `low` <= hash <= `high`, and their records, numbered from `start` on."""
    hashes = _load(part, HASHES)
    first, last = np.searchsorted(hashes, np.uint64(low)), np.searchsorted(hashes, np.uint64(high), side="right")
    return np.array(hashes[first:last]), _load(part, OWNERS)[first:last] + np.uint32(start)


def _load(folder: Path, name: str) -> np.ndarray[Any, Any]:
    """Memory-mapped, which an empty file cannot be."""
    path, dtype = folder / name, np.dtype("<u8" if name == HASHES else "<u4")
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype=dtype)
