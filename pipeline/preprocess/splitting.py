"""Which split each record belongs to. No group stands on both sides, nor do groups that share a duplicate.

What is drawn from together, strata.py says.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.arrays import I64
from pipeline.preprocess.hashes import mix
from pipeline.preprocess.ledger import CONTAMINATED, FREE, SPLIT_CODES, Ledger
from pipeline.preprocess.strata import Own, Strata, draw, fraction_of
from pipeline.shards.tables import KINDS, SPLITS

if TYPE_CHECKING:
    from pipeline.params import PreprocessParams

GROUP_OF_HELD_OUT = "group_of_held_out"

_LOOSEN = "preprocess.min_chars and max_chars, quality and thresholds, languages, or what else these reasons name"


def assign_splits(ledger: Ledger, ties: I64, tying: np.ndarray[Any, Any], params: PreprocessParams) -> None:
    """Give every record that stays its split.

    Tied records go as one. What the user's files fix stays as it is. Of the rest, a record tied to one that the
    user holds out is dropped (`group_of_held_out`). All others are drawn by the hashes of their groups, apart for
    each combination of kinds and source (of several, the first by name), so that each has its share; kinds for which
    the user has a test (or validation) split of their own have none drawn. The order of the records plays no part.

    Args:
        ledger: `split`, and `reason` of those that are lost, are written.
        ties: flat components of records that share a group, a content or a cluster of near duplicates.
        tying: which records' groups count in the draw: all that were not dropped before duplicates were.
    """
    has_fixed, kinds, hashes = ledger.make("has_fixed", "?"), ledger.make("kinds", "u1"), ledger.make("hashes", "u8")
    sources = ledger.make("sources", "u2")
    hashes[:], sources[:] = np.iinfo(np.uint64).max, np.iinfo(np.uint16).max
    for rows in ledger.blocks():
        ledger["split"][rows] = ledger["fixed"][rows]
        has_fixed[ties[_staying(ledger, rows, fixed=True)]] = True
    for rows in ledger.blocks():
        free = _staying(ledger, rows, fixed=False)
        is_torn = has_fixed[ties[free]]
        ledger.drop(free[is_torn], GROUP_OF_HELD_OUT)
        drawn, named = free[~is_torn], rows[tying[rows]]
        np.bitwise_or.at(kinds, ties[drawn], np.left_shift(1, ledger["kind"][drawn]).astype(np.uint8))
        np.minimum.at(sources, ties[drawn], ledger["source"][drawn])
        np.minimum.at(hashes, ties[named], ledger["group_hash"][named])
    seed = mix(np.full(1, params.seed, dtype=np.uint64))
    for rows in ledger.blocks():
        hashes[rows] = mix(hashes[rows] ^ seed)
    splits = ledger.make("splits", "u1")
    draw(Strata(kinds, sources, hashes, own_splits(ledger), params), splits)
    for rows in ledger.blocks():
        drawn = _staying(ledger, rows, fixed=False)
        ledger["split"][drawn] = splits[ties[drawn]]


def _staying(ledger: Ledger, rows: I64, *, fixed: bool) -> I64:
    """Those of the records that stay whose split the user's files fix, or do not."""
    return rows[(ledger["reason"][rows] == 0) & ((ledger["fixed"][rows] != FREE) == fixed)]


def own_splits(ledger: Ledger) -> Own:
    """By kind, the splits of the records that the user's files fix."""
    is_there = np.zeros((len(KINDS), FREE + 1), dtype=bool)
    for rows in ledger.blocks():
        is_there[ledger["kind"][rows], ledger["fixed"][rows]] = True
    return {
        kind: {split for code, split in enumerate(SPLIT_CODES) if is_there[place, code]}
        for place, kind in enumerate(KINDS)
    }


def require_splits(ledger: Ledger, params: PreprocessParams) -> None:
    """
    Raises:
        ValueError: of some kind there are records that stay, but none in one of the splits.
    """
    own, staying = own_splits(ledger), np.zeros((len(KINDS), FREE + 1), dtype=np.int64)
    for rows in ledger.blocks():
        rows = rows[ledger["reason"][rows] == 0]
        np.add.at(staying, (ledger["kind"][rows], ledger["split"][rows]), 1)
    if not staying.any():
        raise ValueError(f"every record was dropped ({_by_reason(ledger)}): loosen {_LOOSEN}")
    for place, kind in enumerate(KINDS):
        for split in SPLITS:
            if staying[place].any() and not staying[place, SPLIT_CODES.index(split)]:
                lost = _lost(ledger, place, SPLIT_CODES.index(split))
                remedy = _contaminated(lost, params) if lost else _remedy(ledger, place, split, own, params)
                raise ValueError(f"no {kind} are left for the split {split}: {remedy}")


def _by_reason(ledger: Ledger) -> str:
    """How many records each reason drops, most first."""
    counts: Counter[str] = Counter()
    for rows in ledger.blocks():
        found = np.bincount(ledger["reason"][rows], minlength=len(ledger.reasons))
        counts.update({reason: int(count) for reason, count in zip(ledger.reasons, found, strict=True) if count})
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())


def _lost(ledger: Ledger, kind: int, split: int) -> int:
    """How many records of a kind and split are contaminated."""
    code, lost = ledger.code(CONTAMINATED), 0
    for rows in ledger.blocks():
        is_own = (ledger["kind"][rows] == kind) & (ledger["split"][rows] == split)
        lost += int(np.count_nonzero(ledger["reason"][rows[is_own]] == code))
    return lost


def _groups(ledger: Ledger, kind: int) -> int:
    """Of how many groups records of a kind stay."""
    groups: set[int] = set()
    for rows in ledger.blocks():
        is_own = (ledger["kind"][rows] == kind) & (ledger["reason"][rows] == 0)
        groups.update(np.unique(ledger["group_hash"][rows[is_own]]).tolist())
    return len(groups)


def _is_any_free(ledger: Ledger, kind: int) -> bool:
    """Whether any of the records of a kind that stay is in a split that the user's files do not fix."""
    return any(
        bool((ledger["kind"][found] == kind).any())
        for rows in ledger.blocks()
        if len(found := _staying(ledger, rows, fixed=False))
    )


def _contaminated(lost: int, params: PreprocessParams) -> str:
    return (
        f"{lost} of its records are dropped as {CONTAMINATED}, for {params.contamination_words} words in a row that "
        "they share with held-out records or preprocess.evaluation_sets; raise preprocess.contamination_words or "
        "contamination_share, or add records"
    )


def _remedy(ledger: Ledger, kind: int, split: str, own: Own, params: PreprocessParams) -> str:
    if split in own[KINDS[kind]]:
        return (
            "all of your own are dropped, or in groups or with contents of another of your splits; "
            "data/README.md says how records are kept apart"
        )
    if split != "train" and fraction_of(params, split) == 0:
        return f"raise preprocess.{split}_fraction above 0, or bring a {split} file of your own"
    if split == "train" and not _is_any_free(ledger, kind):
        return "all that are kept are in validation and test files of your own; bring others to train on"
    return (
        f"{_groups(ledger, kind)} groups of them are kept, of which what you hold out takes its share first; "
        "add records, or lower preprocess.validation_fraction and preprocess.test_fraction"
    )
