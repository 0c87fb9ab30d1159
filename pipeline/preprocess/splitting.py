"""Which split each record belongs to. No group stands on both sides, nor do groups that share a duplicate."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from typing import TYPE_CHECKING

import polars as pl

from pipeline.preprocess.duplicates import tied_groups
from pipeline.shards.tables import KINDS, SPLITS

if TYPE_CHECKING:
    from pipeline.params import PreprocessParams

HELD_OUT = ("test", "validation")


def assign_splits(records: pl.DataFrame, params: PreprocessParams) -> pl.DataFrame:
    """Give every record that stays its split.

    Tied groups go as one. What the user's files fix stays as it is. Of the rest, a record tied to one that the
    user holds out is dropped (`group_of_held_out`). All others are drawn by the hash of their group, apart for
    each combination of kinds, so that each kind has its share; kinds for which the user has a test (or
    validation) split of their own have none drawn.

    Args:
        records: `kind`, `group`, `key`, `split`, `reason`, `detail`; rows with a reason have been dropped and
            tie groups none the less, unless their key is null.

    Returns:
        The same rows with `split` set, or else `reason`.

    Raises:
        ValueError: a split that is wanted would be empty.
    """
    ties = tied_groups(records.drop_nulls("key"))
    tied = records.with_columns(tie=pl.col("group").replace(ties))
    kept = tied.filter(pl.col("reason").is_null())
    held_out = set(kept.drop_nulls("split")["tie"])
    own = _own_splits(records)
    splits = draw(_kinds_of_ties(kept.filter(~pl.col("tie").is_in(held_out))), own, params)

    is_free = pl.col("reason").is_null() & pl.col("split").is_null()
    is_lost = is_free & pl.col("tie").is_in(held_out)
    split_of_tie = pl.col("tie").replace_strict(splits, default=None, return_dtype=pl.String)
    decided = tied.with_columns(
        split=pl.when(is_free).then(split_of_tie).otherwise("split"),
        reason=pl.when(is_lost).then(pl.lit("group_of_held_out")).otherwise("reason"),
        detail=pl.when(is_lost).then(pl.format("group {}", "group")).otherwise("detail"),
    )
    _require_splits(decided.filter(pl.col("reason").is_null()), own, params)
    return decided.drop("tie")


def draw(kinds: dict[str, tuple[str, ...]], own: dict[str, set[str]], params: PreprocessParams) -> dict[str, str]:
    """A split for each tie.

    Args:
        kinds: the kinds of records each tie has. Ties with the same kinds are drawn from together: in the order
            of their hashes the first are test, the next validation, the rest train, at least one each where
            there are as many.
        own: per kind, the splits that the user has files for.
        params: the fractions and the seed.
    """
    strata: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for tie, stratum in kinds.items():
        strata[stratum].append(tie)
    splits: dict[str, str] = {}
    for stratum, ties in strata.items():
        ties.sort(key=lambda tie: (_hash(params.seed, tie), tie))
        rest = iter(ties)
        left = len(ties) - 1  # one at least is for train
        for split in HELD_OUT:
            wanted = 0 if all(split in own[kind] for kind in stratum) else _share(_fraction(params, split), len(ties))
            splits |= {next(rest): split for _ in range(min(wanted, left))}
            left -= min(wanted, left)
        splits |= dict.fromkeys(rest, "train")
    return splits


def _kinds_of_ties(records: pl.DataFrame) -> dict[str, tuple[str, ...]]:
    pairs = records.select("tie", "kind").unique().group_by("tie").agg(pl.col("kind").sort())
    return {tie: tuple(kinds) for tie, kinds in pairs.iter_rows()}


def _own_splits(records: pl.DataFrame) -> dict[str, set[str]]:
    pairs = set(records.drop_nulls("split").select("kind", "split").iter_rows())
    return {kind: {split for owner, split in pairs if owner == kind} for kind in KINDS}


def _hash(seed: int, tie: str) -> bytes:
    return hashlib.blake2b(f"{seed} {tie}".encode(), digest_size=16).digest()


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


def _require_splits(kept: pl.DataFrame, own: dict[str, set[str]], params: PreprocessParams) -> None:
    if not kept.height:
        raise ValueError("every record was dropped: loosen preprocess.min_chars and preprocess.max_chars")
    present = set(kept.select("kind", "split").unique().iter_rows())
    for kind in sorted({kind for kind, _ in present}):
        for split in SPLITS:
            if (kind, split) not in present:
                groups = kept.filter(pl.col("kind") == kind)["group"].n_unique()
                raise ValueError(
                    f"no {kind} are left for the split {split}: {_remedy(split, split in own[kind], groups, params)}"
                )
