"""The n-grams of all evaluation records, sorted, on disk: what a shard looks up touches few pages of it.

Each shard with such records, and each file of evaluation sets, writes its own, sorted (a *part*). The parts are merged
range by range: hashes are as good as random, so that an even cut of the range cuts all parts into even pieces.

An n-gram of several records is put down to the one with the fewest: of a held-out module and a question about a
function in it, the question. Whatever holds a record whole then has all that is put down to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import pairwise
from mmap import ACCESS_READ, mmap
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline import mapped
from pipeline.arrays import I64, U64, Bools
from pipeline.preprocess.contamination.anchors import bitmap, width_for
from pipeline.shards.manifest import write_manifest

HASHES, OWNERS, IN_SETS = "hashes.u64", "owners.u32", "in-sets.u8"
"""With an entry for each n-gram, little-endian and nothing else; the third says how many records of the user's
evaluation sets have it, 2 for more."""

COUNTS, OWNED, IDS, ID_ENDS = "counts.u32", "owned.npy", "ids.utf8", "id-ends.u64"
"""With an entry for each record, of which an owner is the number: of how many n-grams it is made and, where parts are
merged, how many of them are put down to it; all ids in a row, and where each ends."""

ANCHORS, BITMAP = "anchors.u64", "anchors.bits"
"""The anchors of a part; a bitmap of those of all."""

_TYPES = {HASHES: "<u8", OWNERS: "<u4", IN_SETS: "u1", COUNTS: "<u4", ID_ENDS: "<u8", IDS: "u1", ANCHORS: "<u8"}

AT_A_TIME, FEW, OF_A_PART = 1 << 22, 1 << 18, 1 << 12
"""n-grams of a range, at most, if they are spread evenly; merging takes some 80 bytes for each. Of few parts ranges are
smaller: what is made of one is then in the processor's cache, but each opens all parts."""

OPENED = 4096
"""Files that merging keeps open from one range to the next, at most, and half as many as the process may have open."""

Load = Callable[[Path, str], np.ndarray[Any, Any]]


class Ngrams(NamedTuple):
    """Of some records: the hashes (n,) of their n-grams, the number of the record that has each, and all anchors."""

    hashes: U64
    owners: I64
    anchors: U64


def write_part(folder: Path, ids: pl.Series, ngrams: Ngrams, of_sets: Bools) -> None:
    """Write the n-grams of some records into `folder`.

    Args:
        ids: of the records; forms of one record have the same.
        of_sets: (records,) which of them count as records of the user's evaluation sets.
    """
    _, first, inverse = np.unique(ids.to_numpy(), return_index=True, return_inverse=True)
    numbers = first[inverse][ngrams.owners]
    order, hashes = _in_order(ngrams.hashes, ngrams.owners, numbers)
    owners, numbers = ngrams.owners[order], numbers[order]
    is_record, is_form = np.ones(len(hashes), dtype=bool), np.ones(len(hashes), dtype=bool)
    is_record[1:] = (hashes[1:] != hashes[:-1]) | (numbers[1:] != numbers[:-1])
    is_form[1:] = is_record[1:] | (owners[1:] != owners[:-1])
    hashes, owners, is_record = hashes[is_form], owners[is_form], is_record[is_form]
    counts = np.bincount(owners, minlength=len(ids))
    entries = _put_down(hashes, owners, counts[owners], is_record & of_sets[owners])
    text = np.frombuffer("".join(ids).encode(), dtype=np.uint8)
    ends = np.cumsum(ids.str.len_bytes().to_numpy(), dtype=np.uint64)
    written = dict(zip((HASHES, OWNERS, IN_SETS), entries, strict=True))
    written |= {COUNTS: counts, IDS: text, ID_ENDS: ends, ANCHORS: ngrams.anchors}
    for name, values in written.items():
        values.astype(_TYPES[name]).tofile(folder / name)


def merge(parts: Sequence[Path], folder: Path) -> None:
    """Write the n-grams of all parts into `folder`, which is new. A manifest closes it: every job that names it asks
    for the hash of what is in it."""
    folder.mkdir(parents=True)
    starts = _join_records(parts, folder)
    owned = mapped.make(folder / OWNED, "<u4", starts[-1])
    ngrams, anchors = (sum(_count(part, name) for part in parts) for name in (HASHES, ANCHORS))
    size = min(max(FEW, OF_A_PART * len(parts)), AT_A_TIME)
    ranges = 1 << (-(-max(ngrams, anchors) // size) - 1).bit_length()  # cut where bytes of the bitmap are, too
    width = width_for(anchors)
    load = lru_cache(min(OPENED, getrlimit(RLIMIT_NOFILE)[0] // 2))(_load)
    with ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("wb")) for name in (HASHES, OWNERS, IN_SETS, BITMAP)]
        for low, high in pairwise(index * 2**64 // ranges for index in range(ranges + 1)):
            pieces = [_piece(load, part, start, low, high - 1) for part, start in zip(parts, starts, strict=False)]
            hashes, owners, counts, in_sets = (
                np.concatenate([np.empty(0, dtype=_TYPES[name]), *(piece[place] for piece in pieces)])
                for place, name in enumerate((HASHES, OWNERS, COUNTS, IN_SETS))
            )
            del pieces
            merged = _put_down(hashes, owners, counts, in_sets)
            found = [_between(load(part, ANCHORS), low, high - 1)[0].copy() for part in parts]
            bits = bitmap(np.concatenate([np.empty(0, dtype=_TYPES[ANCHORS]), *found]), width, low, high)
            for file, values in zip(files, (*merged, bits), strict=True):
                file.write(values.data)
            np.add.at(owned, merged[1], np.uint32(1))
    counted = {name: _count(folder, name) for name in (HASHES, OWNERS, IN_SETS, COUNTS, IDS, ID_ENDS)}
    write_manifest(folder, counted | {OWNED: len(owned), BITMAP: 1 << width}, {})


def look_up(folder: Path, hashes: U64) -> tuple[I64, I64]:
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


def count_ngrams(folder: Path) -> int:
    """How many n-grams are in the lookup."""
    return _count(folder, HASHES)


def read_owners(folder: Path, ngrams: I64) -> I64:
    """The record that each of these n-grams is put down to, by their places in the lookup."""
    return _load(folder, OWNERS)[ngrams]


def read_in_sets(folder: Path, ngrams: I64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """How many records of the user's evaluation sets have each of these n-grams, 2 for more."""
    return _load(folder, IN_SETS)[ngrams]


def count_records(folder: Path) -> int:
    """How many records, and further forms of them, are in the lookup or part."""
    return _count(folder, COUNTS)


def read_records(folder: Path, numbers: I64) -> pl.DataFrame:
    """Of these records of the lookup how many n-grams each has (`all`), and how many are put down to it (`owned`)."""
    counts = {"all": _load(folder, COUNTS), "owned": mapped.read(folder / OWNED)}
    return pl.DataFrame({name: values[numbers].astype(np.int64) for name, values in counts.items()})


def read_ids(folder: Path, numbers: I64) -> pl.Series:
    """The ids of these records of the lookup or part."""
    text, ends = _load(folder, IDS).data, _load(folder, ID_ENDS)
    starts = np.where(numbers > 0, ends[np.maximum(numbers, 1) - 1], 0)
    parts = map(slice, starts.tolist(), ends[numbers].tolist())
    return pl.Series([str(text[part], "utf-8") for part in parts], dtype=pl.String)


def count_short(part: Path) -> int:
    """How many records of a part have too few words for an n-gram."""
    return int(np.count_nonzero(_load(part, COUNTS) == 0))


def _in_order(hashes: U64, *keys: Any) -> tuple[I64, U64]:
    """The order of the hashes, of equal ones by the keys, the last first, and then by place; and the hashes in it.

    What is sorted is the first bits of each with its place in the others, which takes a tenth of the time of sorting
    places; those of which others have the same first bits, a few, are put in order among themselves.
    """
    places = np.uint64((1 << len(hashes).bit_length()) - 1)
    packed = np.sort((hashes & ~places) | np.arange(len(hashes), dtype=np.uint64))
    order, firsts = (packed & places).astype(np.int64), packed & ~places
    is_equal = firsts[1:] == firsts[:-1]
    has_equal = np.append(is_equal, False)[: len(hashes)]
    has_equal[1:] |= is_equal
    equal = order[has_equal]
    order[has_equal] = equal[np.lexsort((*(key[equal] for key in keys), hashes[equal]))]
    return order, hashes[order]


def _put_down(hashes: U64, owners: Any, counts: Any, in_sets: Any) -> tuple[U64, Any, Any]:
    """Each n-gram once, sorted, with the owner of the lowest count, of equal ones the first, and the sum of `in_sets`,
    2 for more."""
    order, hashes = _in_order(hashes, counts)
    is_first = np.ones(len(hashes), dtype=bool)
    is_first[1:] = hashes[1:] != hashes[:-1]
    starts, others = np.flatnonzero(is_first), np.flatnonzero(~is_first)
    sums = in_sets[order[starts]].astype(np.int64)
    np.add.at(sums, np.searchsorted(starts, others) - 1, in_sets[order[others]])
    return hashes[starts], owners[order[starts]], np.minimum(sums, 2).astype(np.uint8)


def _join_records(parts: Sequence[Path], folder: Path) -> list[int]:
    """Write what there is of each record, part after part; the number of the first record of each, and of all."""
    starts, end = [0], np.uint64(0)
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in (COUNTS, IDS, ID_ENDS)}
        for part in parts:
            files[COUNTS].write(_load(part, COUNTS).data)
            files[IDS].write(_load(part, IDS).data)
            files[ID_ENDS].write((_load(part, ID_ENDS) + end).data)
            end += np.uint64(_count(part, IDS))
            starts.append(starts[-1] + count_records(part))
    return starts


def _piece(load: Load, part: Path, start: int, low: int, high: int) -> tuple[U64, Any, Any, Any]:
    """The n-grams of a part with `low` <= hash <= `high`: hashes, owners, numbered from `start` on, their counts, and
    how many records of sets have each. They are copies: what a view is of stays open."""
    hashes, own = _between(load(part, HASHES), low, high)
    owners = load(part, OWNERS)[own]
    counts, in_sets = load(part, COUNTS)[owners], load(part, IN_SETS)[own].copy()
    return hashes.copy(), owners + np.uint32(start), counts, in_sets


def _between(values: U64, low: int, high: int) -> tuple[U64, slice]:
    """Of sorted values those from `low` to `high`, and where they are."""
    first, last = np.searchsorted(values, np.uint64(low)), np.searchsorted(values, np.uint64(high), side="right")
    return values[first:last], slice(int(first), int(last))


def _count(folder: Path, name: str) -> int:
    return (folder / name).stat().st_size // np.dtype(_TYPES[name]).itemsize


def _load(folder: Path, name: str) -> np.ndarray[Any, Any]:
    """Memory-mapped, which an empty file cannot be. (That of numpy takes four times as long to open.)"""
    with (folder / name).open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return np.empty(0, dtype=_TYPES[name])
        return np.frombuffer(mmap(file.fileno(), 0, access=ACCESS_READ), dtype=_TYPES[name])
