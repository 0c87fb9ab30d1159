"""Deduplication and splitting against oracles that compare everything with everything."""

import random
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.preprocess.splitting import assign_splits, require_splits
from pipeline.shards.tables import SPLITS
from tests.pipeline.preprocess.ledgers import make_ledger, outcomes, tie_rows

RANK = {"test": 0, "validation": 1, None: 2}
Rows = list[dict[str, Any]]


def params(validation: float = 0.1, test: float = 0.1, seed: int = 0) -> Any:
    return SimpleNamespace(validation_fraction=validation, test_fraction=test, seed=seed)


def record(
    number: int,
    kind: str = "documents",
    group: str = "",
    key: str = "",
    split: str | None = None,
    reason: str | None = None,
    source: int = 0,
) -> dict[str, Any]:
    return {
        "source": source,
        "id": f"id{number}",
        "kind": kind,
        "group": group or f"g{number}",
        "split": split,
        "reason": reason,
        "detail": reason and "detail",
        "key": None if reason else f"{kind} {key or number}".encode(),
    }


def mark_duplicates(folder: Path, rows: Rows) -> Rows:
    """The records with the outcome of deduplication in place of `reason` and `detail`."""
    ledger = make_ledger(folder, rows)
    tie_rows(ledger, rows)
    return outcomes(ledger, rows)


def decide(folder: Path, rows: Rows, params: Any) -> Rows:
    """The records with the outcome of deduplication and of the splits."""
    ledger = make_ledger(folder, rows)
    tying = ledger.stays("staying")
    assign_splits(ledger, tie_rows(ledger, rows), tying, params)
    require_splits(ledger, params)
    return outcomes(ledger, rows)


def random_records(rng: random.Random, with_own_splits: bool) -> Rows:
    """Records with shared contents and groups, and enough that share nothing for no split to be empty."""
    size = rng.randrange(1, 80)
    splits = [None, None, None, None, "validation", "test"] if with_own_splits else [None]
    rows = [
        record(
            number,
            kind=rng.choice(["documents", "conversations"]),
            group=f"group {rng.randrange(size)}",
            key=f"key {rng.randrange(2 * size)}",
            split=rng.choice(splits),
            reason=rng.choice([None] * 9 + ["too_long"]),
            source=rng.randrange(3),
        )
        for number in range(size)
    ]
    for kind in ("documents", "conversations"):
        rows += [record(len(rows) + number, kind) for number in range(5)]
        if with_own_splits:
            rows += [record(len(rows) + n, kind, split=split) for n, split in enumerate(["validation", "test"])]
    rng.shuffle(rows)
    return rows


def components_by_search(rows: Rows) -> dict[str, frozenset[str]]:
    """For each group all groups it can be reached from, found by walking."""
    alive = [row for row in rows if row["key"] is not None]
    neighbours: dict[str, set[str]] = defaultdict(set)
    for one in alive:
        for other in alive:
            if one["key"] == other["key"]:
                neighbours[one["group"]].add(other["group"])
    found = {}
    for start in {row["group"] for row in rows}:
        reached, todo = {start}, [start]
        while todo:
            fresh = neighbours[todo.pop()] - reached
            reached |= fresh
            todo += fresh
        found[start] = frozenset(reached)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_duplicates_against_all_pairs(tmp_path: Path, seed: int) -> None:
    rows = random_records(random.Random(seed), with_own_splits=True)
    marked = mark_duplicates(tmp_path, rows)
    for position, (row, result) in enumerate(zip(rows, marked, strict=True)):
        same = [
            (RANK[other["split"]], place, other["id"])
            for place, other in enumerate(rows)
            if other["key"] == row["key"] and row["key"] is not None
        ]
        if row["reason"] or min(same)[1] == position:
            expected = (row["reason"], row["detail"])
        else:
            rank, _, keeper = min(same)
            is_held_out = rank < 2 and rank < RANK[row["split"]]
            expected = ("duplicate_of_held_out" if is_held_out else "duplicate", keeper)
        assert (result["reason"], result["detail"]) == expected
        assert result["id"] == row["id"]


@pytest.mark.parametrize("with_own_splits", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_splits_keep_to_every_rule(tmp_path: Path, seed: int, with_own_splits: bool) -> None:
    rows = random_records(random.Random(seed), with_own_splits)
    decided = decide(tmp_path, rows, params(seed=seed))
    components = components_by_search(rows)
    where: dict[frozenset[str], set[str]] = defaultdict(set)
    fixed: dict[frozenset[str], set[str]] = defaultdict(set)
    for row, result in zip(rows, decided, strict=True):
        if result["reason"] is None:
            assert result["split"] in SPLITS
            assert row["split"] in (None, result["split"])
            where[components[row["group"]]].add(result["split"])
            if row["split"]:
                fixed[components[row["group"]]].add(row["split"])
    for row, result in zip(rows, decided, strict=True):
        component = components[row["group"]]
        held_out = fixed[component] & {"test", "validation"}
        if result["reason"] == "group_of_held_out":
            assert row["split"] is None
            assert held_out
        elif result["reason"] is None and row["split"] is None:
            assert not held_out
            assert result["split"] == "train" or not fixed[component]
    for component, splits in where.items():
        assert len(splits) == 1 or splits == fixed[component]  # only the user may tear a component apart
    kept = [(result["kind"], result["split"]) for result in decided if result["reason"] is None]
    assert set(kept) == {(kind, split) for kind in ("documents", "conversations") for split in SPLITS}
    if with_own_splits:
        for row, result in zip(rows, decided, strict=True):
            assert row["split"] or result["reason"] or result["split"] == "train"


@pytest.mark.parametrize("seed", range(5))
def test_blocks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rows = random_records(random.Random(seed), with_own_splits=seed % 2 == 0)
    whole = decide(tmp_path / "whole", rows, params(seed=seed))
    monkeypatch.setattr("pipeline.mapped.BLOCK", 3)
    assert decide(tmp_path / "blocks", rows, params(seed=seed)) == whole


def test_fractions_are_of_the_groups_and_the_seed_draws_them(tmp_path: Path) -> None:
    rows = [record(number, group=f"g{number % 100}") for number in range(300)]

    def splits(seed: int) -> list[str]:
        return [row["split"] for row in decide(tmp_path, rows, params(validation=0.07, test=0.2, seed=seed))]

    assert [splits(0).count(split) for split in SPLITS] == [219, 21, 60]
    assert splits(0) == splits(0)
    assert splits(0) != splits(1)
    moved = dict(zip([row["id"] for row in rows], splits(0), strict=True))
    rows.reverse()
    assert moved == dict(zip([row["id"] for row in rows], splits(0), strict=True))


def test_each_kind_has_its_share(tmp_path: Path) -> None:
    rows = [record(number) for number in range(97)] + [record(100 + number, "conversations") for number in range(3)]
    decided = decide(tmp_path, rows, params(0.01, 0.01))
    assert {row["split"] for row in decided if row["kind"] == "conversations"} == set(SPLITS)


def by_source(decided: Rows, rows: Rows) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for row, result in zip(rows, decided, strict=True):
        found[row["source"]].append(result["split"])
    return found


def test_each_source_has_its_share_whatever_others_there_are(tmp_path: Path) -> None:
    rows = [record(number, source=2 * (number < 40)) for number in range(240)]
    decided = decide(tmp_path, rows, params(validation=0.05, test=0.1))
    found = by_source(decided, rows)
    assert [found[0].count(split) for split in SPLITS] == [170, 10, 20]
    assert [found[2].count(split) for split in SPLITS] == [34, 2, 4]
    more = [*rows, *(record(number, source=1) for number in range(240, 400)), record(400, source=3)]
    assert decide(tmp_path, more, params(validation=0.05, test=0.1))[:240] == decided


def test_small_sources_have_their_share_together_and_keep_some_to_train_on(tmp_path: Path) -> None:
    """Each of them by itself could give 0 of its 3 records or 1, and not 10%."""
    rows = [record(number, source=number // 3) for number in range(150)]
    for seed in range(5):
        found = by_source(decide(tmp_path, rows, params(seed=seed)), rows)
        total = [split for splits in found.values() for split in splits]
        assert [total.count(split) for split in SPLITS] == [120, 15, 15]
        assert all("train" in splits for splits in found.values())


def test_sources_of_one_record_can_be_held_out(tmp_path: Path) -> None:
    rows = [record(number, source=number) for number in range(20)]
    assert {row["split"] for row in decide(tmp_path, rows, params())} == set(SPLITS)


def test_own_splits_are_not_added_to(tmp_path: Path) -> None:
    rows = [record(number) for number in range(20)] + [record(20, split="test")]
    splits = [row["split"] for row in decide(tmp_path, rows, params())]
    assert splits.count("test") == 1
    assert splits.count("validation") == 2


def test_own_splits_of_one_kind_leave_the_other_its_share(tmp_path: Path) -> None:
    kinds = ("documents", "conversations")
    rows = [record(n, kinds[n % 2], group=f"g{n // 2}") for n in range(40)]
    decided = decide(tmp_path, [*rows, record(40, "conversations", split="test")], params())
    assert [row["split"] for row in decided if row["kind"] == "documents"].count("test") == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [record(0, reason="too_short"), record(1, reason="c4_few_sentences"), record(2, reason="too_short")],
            r"every record was dropped \(too_short 2, c4_few_sentences 1\): loosen preprocess\.min_chars",
        ),
        ([record(0)], r"no documents are left for the split validation: 1 groups of them are kept"),
        ([record(0), record(1)], "no documents are left for the split validation"),
        ([record(n, group="one") for n in range(9)], "no documents are left for the split validation"),
        ([record(n, split="test") for n in range(9)], "split train: all that are kept are in validation and test"),
        ([*(record(n) for n in range(9)), record(9, "conversations")], "no conversations are left"),
        (
            [*(record(n) for n in range(9)), record(9, split="test", reason="too_long")],
            r"split test: all of your own are dropped",
        ),
    ],
)
def test_an_empty_split_is_an_error(tmp_path: Path, rows: Rows, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decide(tmp_path, rows, params())


def test_a_split_that_contamination_empties_is_told_so(tmp_path: Path) -> None:
    rows = [*(record(n) for n in range(9)), *(record(n, "conversations") for n in range(9, 18))]
    ledger = make_ledger(tmp_path, rows)
    wanted = SimpleNamespace(**vars(params()), contamination_words=13)
    assign_splits(ledger, tie_rows(ledger, rows), ledger.stays("staying"), wanted)
    ledger.drop((np.asarray(ledger["kind"]) == 1) & (np.asarray(ledger["split"]) == 2), "contaminated")
    message = (
        r"no conversations are left for the split train: 7 of its records are dropped as contaminated, for 13 words"
    )
    with pytest.raises(ValueError, match=message + r".*; raise preprocess\.contamination_words or contamination_share"):
        require_splits(ledger, wanted)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_nothing_held_out_is_an_error_before_any_training(tmp_path: Path, split: str) -> None:
    fractions = {"validation": 0.1, "test": 0.1, split: 0.0}
    with pytest.raises(ValueError, match=rf"split {split}: raise preprocess\.{split}_fraction above 0, or bring"):
        decide(tmp_path, [record(n) for n in range(20)], params(**fractions))
    brought = [*(record(n) for n in range(20)), record(20, split=split)]
    assert {row["split"] for row in decide(tmp_path, brought, params(**fractions))} == set(SPLITS)
