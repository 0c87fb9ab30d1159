"""Which split each record belongs to. No group stands on both sides, nor do groups that share a duplicate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.preprocess.components import I64
from pipeline.preprocess.hashes import mix
from pipeline.preprocess.ledger import FREE, SPLIT_CODES, Ledger
from pipeline.shards.tables import KINDS, SPLITS

if TYPE_CHECKING:
    from pipeline.params import PreprocessParams

GROUP_OF_HELD_OUT = "group_of_held_out"
HELD_OUT = ("test", "validation")
TRAIN = SPLIT_CODES.index("train")

Own = dict[str, set[str]]
"""By kind, the splits that the user has files for."""


def assign_splits(ledger: Ledger, ties: I64, tying: np.ndarray[Any, Any], params: PreprocessParams) -> None:
    """Give every record that stays its split.

    Tied records go as one. What the user's files fix stays as it is. Of the rest, a record tied to one that the
    user holds out is dropped (`group_of_held_out`). All others are drawn by the hashes of their groups, apart for
    each combination of kinds, so that each kind has its share; kinds for which the user has a test (or
    validation) split of their own have none drawn. The order of the records plays no part.

    Args:
        ledger: `split`, and `reason` of those that are lost, are written.
        ties: flat components of records that share a group, a content or a cluster of near duplicates.
        tying: which records' groups count in the draw: all that were not dropped before duplicates were.
    """
    stays, fixed = ledger.stays(), np.asarray(ledger["fixed"])
    own = own_splits(ledger)
    has_fixed = np.zeros(ledger.total, dtype=bool)
    has_fixed[ties[stays & (fixed != FREE)]] = True
    is_free = stays & (fixed == FREE)
    ledger["split"][:] = fixed
    ledger.drop(is_free & has_fixed[ties], GROUP_OF_HELD_OUT)
    drawn = np.flatnonzero(is_free & ~has_fixed[ties])
    kinds = np.zeros(ledger.total, dtype=np.uint8)
    np.bitwise_or.at(kinds, ties[drawn], np.left_shift(1, ledger["kind"][drawn]).astype(np.uint8))
    names = np.full(ledger.total, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(names, ties[tying], ledger["group_hash"][tying])
    splits = draw(kinds, mix(names ^ mix(np.full(1, params.seed, dtype=np.uint64))), own, params)
    ledger["split"][drawn] = splits[ties[drawn]]


def draw(
    kinds: np.ndarray[Any, Any], hashes: np.ndarray[Any, Any], own: Own, params: PreprocessParams
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A split for each tie.

    Args:
        kinds: (n,) the kinds of records each tie has, a bit for each place in KINDS; 0: there is no such tie. Ties
            with the same kinds are drawn from together: in the order of their hashes the first are test, the next
            validation, the rest train, at least one each where there are as many.
        hashes: (n,)
    """
    splits = np.full(len(kinds), TRAIN, dtype=np.uint8)
    for stratum in range(1, 1 << len(KINDS)):
        ties = np.flatnonzero(kinds == stratum)
        ties = ties[np.argsort(hashes[ties], kind="stable")]
        names = [kind for place, kind in enumerate(KINDS) if stratum >> place & 1]
        taken, left = 0, len(ties) - 1  # one at least is for train
        for split in HELD_OUT:
            wanted = 0 if all(split in own[kind] for kind in names) else _share(_fraction(params, split), len(ties))
            count = max(0, min(wanted, left - taken))
            splits[ties[taken : taken + count]] = SPLIT_CODES.index(split)
            taken += count
    return splits


def own_splits(ledger: Ledger) -> Own:
    """By kind, the splits of the records that the user's files fix."""
    fixed = np.unique(np.asarray(ledger["kind"]) * (FREE + 1) + np.asarray(ledger["fixed"]))
    pairs = {divmod(int(code), FREE + 1) for code in fixed}
    return {
        kind: {SPLIT_CODES[split] for owner, split in pairs if owner == place and split != FREE}
        for place, kind in enumerate(KINDS)
    }


def require_splits(ledger: Ledger, params: PreprocessParams) -> None:
    """
    Raises:
        ValueError: of some kind there are records that stay, but none in one of the splits.
    """
    own, stays = own_splits(ledger), ledger.stays()
    if not stays.any():
        raise ValueError("every record was dropped: loosen preprocess.min_chars and preprocess.max_chars")
    for place, kind in enumerate(KINDS):
        of_kind = stays & (np.asarray(ledger["kind"]) == place)
        for split in SPLITS:
            if of_kind.any() and not (of_kind & (np.asarray(ledger["split"]) == SPLIT_CODES.index(split))).any():
                groups = len(np.unique(ledger["group_hash"][of_kind]))
                raise ValueError(
                    f"no {kind} are left for the split {split}: {_remedy(split, split in own[kind], groups, params)}"
                )


def _share(fraction: float, count: int) -> int:
    return math.ceil(round(fraction * count, 6))  # 0.07 * 100 is a little more than 7


def _fraction(params: PreprocessParams, split: str) -> float:
    return {"test": params.test_fraction, "validation": params.validation_fraction}[split]


def _remedy(split: str, brought: bool, groups: int, params: PreprocessParams) -> str:
    if brought:
        return (
            "all of your own are dropped, or in groups or with contents of another of your splits; "
            "data/README.md says how records are kept apart"
        )
    if split != "train" and _fraction(params, split) == 0:
        return f"raise preprocess.{split}_fraction above 0, or bring a {split} file of your own"
    return (
        f"{groups} groups of them are kept, of which what you hold out takes its share first; "
        "add records, or lower preprocess.validation_fraction and preprocess.test_fraction"
    )
