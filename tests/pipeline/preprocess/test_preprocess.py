"""Preprocess as a whole: nothing is lost, nothing leaks, and the bytes depend on the input alone."""

import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from pipeline.preprocess import run
from pipeline.preprocess.run import preprocess
from pipeline.shards import verify_manifest, write_manifest
from pipeline.shards.tables import KINDS, SPLITS, columns, shard_file, write_table

PARAMS: Any = SimpleNamespace(min_chars=3, max_chars=40, validation_fraction=0.2, test_fraction=0.2, seed=0)


def write_ingested(directory: Path, seed: int = 0, own_splits: bool = False) -> Path:
    """Shards of both kinds as ingest writes them, with records to drop for every reason."""
    rng = random.Random(seed)
    directory.mkdir(parents=True)
    counts = {}
    words = ["", "ab", "abc\r", "abc\n", "e\u0301e\u0301", "x" * 41]
    for index in range(4):
        for kind in KINDS:
            rows = []
            for number in range(50):
                text = rng.choice(words) if rng.random() < 0.3 else f"text {rng.randrange(300)}"
                split = rng.choice([None, None, *SPLITS]) if own_splits else None
                messages = [{"role": "user", "content": f"{rng.randrange(30)}"}, {"role": "assistant", "content": text}]
                content = text if kind == "documents" else messages
                rows.append((f"{kind}{index}:{number}", f"group {rng.randrange(100)}", split, content))
            name = shard_file(kind, index)
            write_table(pl.DataFrame(rows, schema=columns(kind, split=True), orient="row"), directory / name)
            counts[name] = len(rows)
    write_manifest(directory, counts, {})
    return directory


def read_clean(directory: Path) -> pl.DataFrame:
    """`id`, `group`, `kind`, `split` of every record that was written."""
    parts = [
        pl.read_parquet(file).select("id", "group", kind=pl.lit(kind), split=pl.lit(split))
        for kind in KINDS
        for split in SPLITS
        for file in sorted(directory.glob(f"{split}/{kind}-*.parquet"))
    ]
    return pl.concat(parts)


@pytest.mark.parametrize("own_splits", [False, True])
def test_every_record_is_written_once_or_dropped_once(tmp_path: Path, own_splits: bool) -> None:
    source = write_ingested(tmp_path / "in", own_splits=own_splits)
    summary = preprocess(source, tmp_path / "out", PARAMS, workers=1)
    manifest = verify_manifest(tmp_path / "out")
    kept, dropped = read_clean(tmp_path / "out"), pl.read_parquet(tmp_path / "out" / "dropped.parquet")
    given = [pl.read_parquet(file)["id"] for file in source.glob("*.parquet")]
    assert sorted([*kept["id"], *dropped["id"]]) == sorted(pl.concat(given))
    assert manifest["records_in"] == 400 == manifest["records_out"] + sum(manifest["dropped"].values())
    assert manifest["dropped"] == dict(dropped["reason"].value_counts().iter_rows())
    assert {"too_short", "too_long", "empty_response", "duplicate"} <= set(manifest["dropped"])
    assert ("duplicate_of_held_out" in manifest["dropped"]) == own_splits
    assert dropped.columns == ["id", "kind", "group", "reason", "detail"]
    assert not dropped["detail"].has_nulls()
    for (split, kind), part in kept.group_by("split", "kind"):
        assert manifest["splits"][split][kind]["records"] == part.height == summary[f"{split}/{kind}"]


def test_what_is_written_is_clean_and_in_order(tmp_path: Path) -> None:
    preprocess(write_ingested(tmp_path / "in"), tmp_path / "out", PARAMS, workers=1)
    seen, characters = set(), 0
    for file in sorted((tmp_path / "out" / "train").glob("documents-*.parquet")):
        table = pl.read_parquet(file)
        assert table.schema == columns("documents", split=False)
        for text in table["text"]:
            assert text not in seen
            assert "\r" not in text
            assert "\u0301" not in text
            seen.add(text)
            characters += len(text)
        numbers = [int(name.split(":")[1]) for name in table["id"]]
        assert numbers == sorted(numbers)
    manifest = verify_manifest(tmp_path / "out")
    assert manifest["splits"]["train"]["documents"] == {"records": len(seen), "characters": characters}


def test_no_held_out_group_is_trained_on(tmp_path: Path) -> None:
    preprocess(write_ingested(tmp_path / "in"), tmp_path / "out", PARAMS, workers=1)
    groups = {split: set(part["group"]) for (split,), part in read_clean(tmp_path / "out").group_by("split")}
    assert set(groups) == set(SPLITS)
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["test"] & groups["validation"]


def test_groups_with_a_shared_duplicate_go_together(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    rows = [(f"{n}", f"group {n}", None, f"text {n}") for n in range(30)]
    rows += [(f"copy {n}", f"group {n + 1}", None, f"text {n}") for n in range(0, 30, 2)]  # ties 0-1, 2-3, ...
    write_table(
        pl.DataFrame(rows, schema=columns("documents", split=True), orient="row"), source / "documents-00000.parquet"
    )
    write_manifest(source, {"documents-00000.parquet": len(rows)}, {})
    preprocess(source, tmp_path / "out", PARAMS, workers=1)
    split_of = {group: split for _, group, _, split in read_clean(tmp_path / "out").iter_rows()}
    assert set(split_of.values()) == set(SPLITS)
    for n in range(0, 30, 2):
        assert split_of[f"group {n}"] == split_of[f"group {n + 1}"]


def test_bytes_depend_on_neither_workers_nor_place(tmp_path: Path) -> None:
    write_ingested(tmp_path / "one" / "in", own_splits=True)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for place, workers in (("one", 1), ("two", 2)):
        preprocess(tmp_path / place / "in", tmp_path / place / "out", PARAMS, workers=workers)
    one, two = (tmp_path / place / "out" / "manifest.json" for place in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    verify_manifest(tmp_path / "two" / "out")


def test_running_again_replaces_all(tmp_path: Path) -> None:
    source, out = write_ingested(tmp_path / "in"), tmp_path / "out"
    preprocess(source, out, PARAMS, workers=1)
    before = (out / "manifest.json").read_bytes()
    (out / "test" / "stray").write_text("stray")
    preprocess(source, out, PARAMS, workers=1)
    assert (out / "manifest.json").read_bytes() == before
    verify_manifest(out)


def test_a_failure_half_way_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_ingested(tmp_path / "in"), tmp_path / "out"
    preprocess(source, out, PARAMS, workers=1)
    before = (out / "manifest.json").read_bytes()
    written = []

    def fail_at_the_third(table: pl.DataFrame, path: Path) -> None:
        write_table(table, path)
        written.append(path)
        if len(written) == 3:
            raise OSError("disk full")

    monkeypatch.setattr(run, "write_table", fail_at_the_third)
    with pytest.raises(OSError, match="disk full"):
        preprocess(source, out, PARAMS, workers=1)
    assert (out / "manifest.json").read_bytes() == before
    verify_manifest(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_input_that_is_not_whole_is_an_error(tmp_path: Path) -> None:
    source = write_ingested(tmp_path / "in")
    (source / "documents-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"documents-00001\.parquet is missing"):
        preprocess(source, tmp_path / "out", PARAMS, workers=1)
    (source / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"manifest\.json is missing"):
        preprocess(source, tmp_path / "out", PARAMS, workers=1)
    assert not (tmp_path / "out").exists()
