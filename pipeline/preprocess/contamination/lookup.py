"""The n-grams of all evaluation records, sorted, on disk: what a shard looks up touches few pages of it.

Each shard with such records, and each file of evaluation sets, writes its own, sorted (a *part*). The parts are merged
range by range: hashes are as good as random, so that an even cut of the range cuts all parts into even pieces.

An n-gram of several records is put down to the one with the fewest: of a held-out module and a question about a
function in it, the question. Whatever holds a record whole then has all that is put down to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.preprocess.words import Ints
from pipeline.shards.manifest import write_manifest
from pipeline.shards.tables import join_tables, write_table
from pipeline.splitmix import U64

HASHES, OWNERS, IN_SETS = "hashes.u64", "owners.u32", "in-sets.u8"
"""With an entry for each n-gram, little-endian and nothing else; the third says how many records of the user's
evaluation sets have it, 2 for more."""

COUNTS, OWNED, RECORDS = "counts.u32", "owned.u32", "records.parquet"
"""With an entry for each record, of whose rows an owner is one: of how many n-grams it is made and, where parts are
merged, how many of them are put down to it."""

_TYPES = {HASHES: "<u8", OWNERS: "<u4", IN_SETS: "u1", COUNTS: "<u4", OWNED: "<u4"}

AT_A_TIME = 1 << 22
"""n-grams of a range, if they are spread evenly; merging takes some 90 bytes for each."""


def write_part(folder: Path, ids: pl.Series, hashes: U64, owners: Ints, *, of_sets: bool) -> None:
    """Write the n-grams of some records into `folder`.

    Args:
        ids: of the records; forms of one record have the same.
        hashes: (n,) of their n-grams.
        owners: (n,) the place in `ids` of the record that has each.
        of_sets: whether they are of the user's evaluation sets.
    """
    _, first, inverse = np.unique(ids.to_numpy(), return_index=True, return_inverse=True)
    numbers = first[inverse][owners]
    order = np.lexsort((owners, numbers, hashes))
    hashes, owners, numbers = hashes[order], owners[order], numbers[order]
    is_record, is_form = np.ones(len(hashes), dtype=bool), np.ones(len(hashes), dtype=bool)
    is_record[1:] = (hashes[1:] != hashes[:-1]) | (numbers[1:] != numbers[:-1])
    is_form[1:] = is_record[1:] | (owners[1:] != owners[:-1])
    hashes, owners = hashes[is_form], owners[is_form]
    counts = np.bincount(owners, minlength=len(ids))
    entries = _put_down(hashes, owners, counts[owners], is_record[is_form] & of_sets)
    for name, values in zip((HASHES, OWNERS, IN_SETS, COUNTS), (*entries, counts), strict=True):
        values.astype(_TYPES[name]).tofile(folder / name)
    write_table(pl.DataFrame({"evaluation": ids}), folder / RECORDS)


def merge(parts: Sequence[Path], folder: Path) -> None:
    """Write the n-grams of all parts into `folder`, which is new. A manifest closes it: every job that names it asks
    for the hash of what is in it."""
    folder.mkdir(parents=True)
    if parts:
        join_tables([part / RECORDS for part in parts], folder / RECORDS)
    else:
        write_table(pl.DataFrame(schema={"evaluation": pl.String}), folder / RECORDS)
    starts = np.cumsum([0, *(len(_load(part, COUNTS)) for part in parts)]).tolist()
    owned = np.zeros(starts[-1], dtype="<u4")
    count = max(1, -(-sum(len(_load(part, HASHES)) for part in parts) // AT_A_TIME))
    files = [(folder / name).open("wb") for name in (HASHES, OWNERS, IN_SETS)]
    with ExitStack() as stack:
        for file in files:
            stack.enter_context(file)
        for low, high in pairwise(index * 2**64 // count for index in range(count + 1)):
            pieces = [_piece(part, start, low, high - 1) for part, start in zip(parts, starts, strict=False)]
            hashes, owners, counts, in_sets = (
                np.concatenate([np.empty(0, dtype=_TYPES[name]), *(piece[place] for piece in pieces)])
                for place, name in enumerate((HASHES, OWNERS, COUNTS, IN_SETS))
            )
            merged = _put_down(hashes, owners, counts, in_sets)
            for file, values in zip(files, merged, strict=True):
                file.write(values.tobytes())
            np.add.at(owned, merged[1], np.uint32(1))
    owned.tofile(folder / OWNED)
    with (folder / COUNTS).open("wb") as file:
        for part in parts:
            file.write(_load(part, COUNTS).tobytes())
    of_records = dict.fromkeys((COUNTS, OWNED, RECORDS), len(owned))
    write_manifest(folder, dict.fromkeys((HASHES, OWNERS, IN_SETS), len(_load(folder, HASHES))) | of_records, {})


def look_up(folder: Path, hashes: U64) -> tuple[Ints, Ints]:
    """Which of `hashes` (n,) are in what `merge` wrote into `folder`: their places in `hashes`, (hits,), and the places
    of the same n-grams in the lookup."""
    known = _load(folder, HASHES)
    if not len(known):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    order = np.argsort(hashes)  # to look up in order touches each page once, and takes a fifteenth of the time
    places = np.minimum(np.searchsorted(known, hashes[order]), len(known) - 1)
    is_known = known[places] == hashes[order]
    by_place = np.argsort(order[is_known])
    return order[is_known][by_place], places[is_known][by_place]


def read_owners(folder: Path, ngrams: Ints) -> Ints:
    """The record that each of these n-grams is put down to, by their places in the lookup."""
    return np.array(_load(folder, OWNERS)[ngrams])


def read_in_sets(folder: Path, ngrams: Ints) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """How many records of the user's evaluation sets have each of these n-grams, 2 for more."""
    return np.array(_load(folder, IN_SETS)[ngrams])


def read_records(folder: Path) -> pl.DataFrame:
    """The records of the lookup: the id (`evaluation`), how many n-grams each has (`all`), and how many are put down
    to it (`owned`)."""
    counts = {"all": _load(folder, COUNTS), "owned": _load(folder, OWNED)}
    whole = {name: pl.Series(name, np.array(values, dtype=np.int64)) for name, values in counts.items()}
    return pl.read_parquet(folder / RECORDS, glob=False).with_columns(**whole)


def count_short(part: Path) -> int:
    """How many records of a part have too few words for an n-gram."""
    return int(np.count_nonzero(_load(part, COUNTS) == 0))


def _put_down(hashes: U64, owners: Any, counts: Any, in_sets: Any) -> tuple[U64, Any, Any]:
    """Each n-gram once, sorted, with the owner of the lowest count, of equal ones the first, and the sum of `in_sets`,
    2 for more."""
    order = np.lexsort((counts, hashes))
    hashes = hashes[order]
    is_first = np.ones(len(hashes), dtype=bool)
    is_first[1:] = hashes[1:] != hashes[:-1]
    starts = np.flatnonzero(is_first)
    sums = np.add.reduceat(in_sets[order], starts, dtype=np.int64) if len(starts) else starts
    return hashes[starts], owners[order[starts]], np.minimum(sums, 2).astype(np.uint8)


def _piece(part: Path, start: int, low: int, high: int) -> tuple[U64, Any, Any, Any]:
    """The n-grams of a part with `low` <= hash <= `high`: hashes, owners, numbered from `start` on, their counts, and
    how many records of sets have each."""
    hashes = _load(part, HASHES)
    first, last = np.searchsorted(hashes, np.uint64(low)), np.searchsorted(hashes, np.uint64(high), side="right")
    owners = np.array(_load(part, OWNERS)[first:last])
    in_sets = np.array(_load(part, IN_SETS)[first:last])
    return np.array(hashes[first:last]), owners + np.uint32(start), _load(part, COUNTS)[owners], in_sets


def _load(folder: Path, name: str) -> np.ndarray[Any, Any]:
    """Memory-mapped, which an empty file cannot be."""
    path, dtype = folder / name, np.dtype(_TYPES[name])
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype=dtype)
