"""Ingest as a whole: every format, every error, the same bytes wherever and however it runs."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.shards import verify_manifest
from pipeline.sources.finding import fixed_split
from tests.pipeline.ingest.stage import ingest, params, rows, write_jsonl

PAIR = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of every format, with splits of its own."""
    root = tmp_path / "input"
    write_jsonl(root / "a.jsonl", [{"text": "one"}, {"messages": PAIR}, {"text": "two", "group": "g"}])
    write_jsonl(root / "test.ndjson", [{"prompt": "p", "completion": "r"}])
    (root / "validation").mkdir()
    table = {"instruction": ["p", "p"], "input": [None, "i"], "output": ["r", "r"], "group": [None, "h"]}
    pl.DataFrame(table).write_parquet(root / "validation" / "x.parquet")
    (root / "docs").mkdir()
    (root / "docs" / "README.md").write_text("# Readme\r\n")
    (root / "docs" / "mark.txt").write_bytes(b"\xef\xbb\xbfbody\n")
    (root / "README.md").write_text("not data")
    (root / ".hidden").write_text("not data")
    return root


def test_every_format_in_the_order_of_the_names(source: Path, tmp_path: Path) -> None:
    summary = ingest(tmp_path / "out", params(source))
    assert rows(tmp_path / "out", "documents") == [
        ("a.jsonl:1", "input", "a.jsonl:1", None, "one"),
        ("a.jsonl:3", "input", "g", None, "two"),
        ("docs/README.md:1", "input", "docs/README.md:1", None, "# Readme\r\n"),
        ("docs/mark.txt:1", "input", "docs/mark.txt:1", None, "body\n"),
    ]
    assert rows(tmp_path / "out", "conversations") == [
        ("a.jsonl:2", "input", "a.jsonl:2", None, PAIR),
        ("test.ndjson:1", "input", "test.ndjson:1", "test", PAIR),
        ("validation/x.parquet:1", "input", "validation/x.parquet:1", "validation", PAIR),
        ("validation/x.parquet:2", "input", "h", "validation", [{"role": "user", "content": "p\n\ni"}, PAIR[1]]),
    ]
    manifest = verify_manifest(tmp_path / "out")
    assert manifest["records_in"] == 8
    assert manifest["records"] == {"documents": 4, "conversations": 4}
    assert manifest["sources"] == {"input": 8}
    assert manifest["quarantined"] == {}
    assert manifest["characters"] == {"documents": 3 + 3 + 10 + 5, "conversations": 11}
    assert summary == {"documents": 4, "conversations": 4, "characters": 32, "left_out": 0, "quarantined": 0}


def test_one_file_is_a_source(source: Path, tmp_path: Path) -> None:
    ingest(tmp_path / "out", params(source / "a.jsonl"))
    assert [row[0] for row in rows(tmp_path / "out", "documents")] == ["a.jsonl:1", "a.jsonl:3"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", None),
        ("test.jsonl", "test"),
        ("test-01.jsonl", "test"),
        ("test_1.jsonl", "test"),
        ("validation.2.parquet", "validation"),
        ("validation-00000-of-00002.parquet", "validation"),
        ("val.jsonl", "validation"),
        ("dev/a.jsonl", "validation"),
        ("validation/deep/a.txt", "validation"),
        ("train/test.txt", "test"),
        ("deep/validation/a.txt", "validation"),
        ("validation/test/a.txt", "test"),
        ("test/validation/b/a.txt", "validation"),
        ("validation/test.txt", "test"),
        ("deep/tests/a.txt", None),
        ("testing.jsonl", None),
        ("test-cases.jsonl", None),
        ("Test.jsonl", "test"),
        ("my-test.jsonl", None),
        ("test-01.jsonl.zst", "test"),
        ("test.min.js", None),
        ("a.jsonl", None),
    ],
)
def test_names_fix_splits(name: str, split: str | None) -> None:
    assert fixed_split(name) == split


def _random_source(root: Path, rng: random.Random) -> list[str]:
    """Files of the texts that are returned, in order, with lines of very different lengths and blank ones."""
    texts = ["é" * rng.choice([1, 10, 300]) + str(number) for number in range(400)]
    write_jsonl(root / "a.jsonl", [{"text": text} for text in texts[:200]])
    with (root / "a.jsonl").open("a") as file:
        file.write("\n  \n")
    pl.DataFrame({"text": texts[200:]}).write_parquet(root / "b.parquet")
    return texts


def test_bytes_depend_on_neither_workers_nor_place(tmp_path: Path) -> None:
    texts = _random_source(tmp_path / "one" / "input", random.Random(0))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    manifests = []
    for place, workers in (("one", 1), ("two", 2)):
        out = tmp_path / place / "out"
        ingest(out, params(tmp_path / place / "input", shard_mb=0.01), workers=workers)
        assert [row[4] for row in rows(out, "documents")] == texts
        ids = [f"a.jsonl:{line}" for line in range(1, 201)] + [f"b.parquet:{row}" for row in range(1, 201)]
        assert [row[0] for row in rows(out, "documents")] == ids
        manifests.append((out / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]
    assert len(list((tmp_path / "one" / "out").glob("*.parquet"))) > 5


def test_shards_are_of_the_size_asked_for(tmp_path: Path) -> None:
    _random_source(tmp_path / "in", random.Random(1))
    for size in (1_000, 5_000, 1_000_000):
        ingest(tmp_path / str(size), params(tmp_path / "in", shard_mb=size / 1e6))
        shards = [pl.read_parquet(file)["text"] for file in sorted((tmp_path / str(size)).glob("*.parquet"))]
        lengths = [int(texts.str.len_bytes().sum()) for texts in shards]
        assert all(length <= size or len(texts) == 1 for length, texts in zip(lengths, shards, strict=True))
        assert len(lengths) <= 1 + 3 * sum(lengths) // size


def _damage_parquet(root: Path) -> None:
    (root / "b.parquet").write_bytes(b"PAR1 no")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "a.jsonl").write_text('{"text": "x"}\n{"text": \n'), r"a\.jsonl:2: not JSON"),
        (lambda root: (root / "a.jsonl").write_text('\n\n["x"]\n'), r"a\.jsonl:3: not a JSON object, but list"),
        (lambda root: (root / "a.jsonl").write_bytes(b'{"text": "\xff"}\n'), r"a\.jsonl:1: not UTF-8"),
        (lambda root: (root / "a.txt").write_bytes(b"a\nb\n\xff\n"), r"a\.txt:3: not UTF-8"),
        (lambda root: (root / "a.jsonl").write_text('{"body": "x"}\n'), r"a\.jsonl:1: the fields fit no schema"),
        (lambda root: (root / "a.jsonl").write_text('{"text": 1}\n'), r"a\.jsonl:1: field text must be"),
        (lambda root: (root / "a.jsonl").write_text('{"text": "x", "group": [1]}\n'), r":1: field group must be"),
        (lambda root: (root / "a.jsonl").write_text(""), r"a\.jsonl is empty"),
        (lambda root: pl.DataFrame({"text": [""]}).clear().write_parquet(root / "b.parquet"), r"b\.parquet is empty"),
        (lambda root: pl.DataFrame({"text": ["x", None]}).write_parquet(root / "b.parquet"), r"row 2: field text"),
        (
            lambda root: pl.DataFrame({"words": ["x"]}).write_parquet(root / "b.parquet"),
            r"b\.parquet has no column to read: the fields fit no schema: found words",
        ),
        (_damage_parquet, r"b\.parquet is not readable as Parquet"),
        (lambda root: (root / "a.csv").write_text("x"), r"a\.csv: unknown format '\.csv'; known are \.jsonl"),
        (lambda root: shutil.rmtree(root), r"source: no file or directory at .*input"),
        (lambda root: (root / "fine.jsonl").unlink(), r"ingest\.source: .*input/ holds no data"),
        (lambda root: (root / "fine.jsonl").write_text("\n"), r"fine\.jsonl holds nothing"),
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_errors_say_where_and_leave_what_was_there(
    tmp_path: Path, damage: Callable[[Path], object], message: str, old: bool
) -> None:
    source, out = tmp_path / "input", tmp_path / "out"
    write_jsonl(source / "fine.jsonl", [{"text": "fine"}])
    if old:
        ingest(out, params(source))
        before = (out / "manifest.json").read_bytes()
    damage(source)
    with pytest.raises(ValueError, match=message):
        ingest(out, params(source))
    assert out.exists() == old
    if old:
        assert (out / "manifest.json").read_bytes() == before
        verify_manifest(out)
    assert not list(tmp_path.glob(".out*"))


def test_the_line_is_right_in_a_late_shard(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "x" * 50}] * 99 + [{"text": None}])
    with pytest.raises(ValueError, match=r"a\.jsonl:100: field text must be a string, not null"):
        ingest(tmp_path / "out", params(source, shard_mb=0.001), workers=2)


def test_running_again_makes_the_same(source: Path, tmp_path: Path) -> None:
    ingest(tmp_path / "out", params(source, shard_mb=1e-5))
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    (tmp_path / "out" / "stray").write_text("stray")
    ingest(tmp_path / "out", params(source, shard_mb=1e-5))
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    verify_manifest(tmp_path / "out")


def test_a_parquet_name_is_no_pattern(tmp_path: Path) -> None:
    pl.DataFrame({"text": ["right"] * 5}).write_parquet(tmp_path / "data[1].parquet")
    pl.DataFrame({"text": ["wrong"] * 3}).write_parquet(tmp_path / "data1.parquet")
    ingest(tmp_path / "out", params(tmp_path / "data[1].parquet"))
    assert [row[4] for row in rows(tmp_path / "out", "documents")] == ["right"] * 5


def test_links_are_followed_and_broken_or_circular_ones_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    write_jsonl(tmp_path / "elsewhere" / "a.jsonl", [{"text": "linked", "group": 7}])
    source = tmp_path / "source"
    source.mkdir()
    (source / "folder").symlink_to(tmp_path / "elsewhere")
    (source / "b.jsonl").symlink_to(tmp_path / "elsewhere" / "a.jsonl")
    ingest(tmp_path / "out", params(source))
    ids_and_groups = [(row[0], row[2]) for row in rows(tmp_path / "out", "documents")]
    assert ids_and_groups == [("b.jsonl:1", "7"), ("folder/a.jsonl:1", "7")]
    (source / "c.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    with pytest.raises(ValueError, match=r"c\.jsonl is a broken link"):
        ingest(tmp_path / "out", params(source))
    (source / "c.jsonl").unlink()
    (source / "up").symlink_to(source)
    with pytest.raises(ValueError, match="up is a link to a folder above it"):
        ingest(tmp_path / "out", params(source))


def test_deep_nesting_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(ValueError, match=r"a\.jsonl:2: nested more than"):
        ingest(tmp_path / "out", params(tmp_path / "a.jsonl"))
