"""What nobody vouches for: each bad record is one error or one entry of the quarantine, and nothing hangs or grows."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipeline.ingest.stage import ingest, manifest, params, quarantine, quarantining, texts, write_jsonl
from tests.pipeline.users import unprivileged

ROOT = Path(__file__).parents[3]
DEEP = b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"

LINES = [
    (b'{"text": "\xff"}', "not_utf8"),
    (b"\xef\xbb\xbf\xef\xbb\xbf{}", "not_json"),
    (b'{"text": "cut', "not_json"),
    (b"\0\0\0", "not_json"),
    (b'{"text": "a\0b"}', "not_json"),
    (b'["text"]', "not_object"),
    (b"NaN", "not_object"),
    (DEEP, "too_deep"),
    (b'{"text": "a", "text": "b"}', "key_twice"),
    (b'{"messages": [{"role": "user", "role": "assistant", "content": ""}]}', "key_twice"),
    (b'{"body": "x"}', "no_schema"),
    (b'{"\\ud800": "x"}', "no_schema"),
    (b'{"' + b'a": 1, "'.join(b"%d" % number for number in range(9000)) + b'": 1}', "no_schema"),
    (b'{"text": 1}', "bad_field"),
    (b'{"text": NaN}', "bad_field"),
    (b'{"text": ' + b"9" * 5000 + b"}", "bad_field"),
    (b'{"text": "\\ud800"}', "bad_field"),
    (b'{"text": "x", "group": "\\udfff"}', "bad_field"),
    (b'{"text": "x", "group": 1e999}', "bad_field"),
    (b'{"messages": [{"role": "\\ud800", "content": ""}]}', "bad_field"),
    (b'{"text": "' + b"x" * 1_000_000 + b'"}', "too_large"),
    (b" " * 1_000_001, "too_large"),
]
GOOD = [b'{"text": "good"}', b'{"text": "a\\u0000b"}', b'{"text": "x", "score": NaN, "n": 1e999, "group": 7}']
ODD = [
    b'{"text": "x", "n": ' + b"9" * 5000 + b"}",
    b'{"text": "[{", "n": ' + b"[" * 399 + b'"\\"[", "]"' + b"]" * 399 + b"}",
]


@pytest.mark.parametrize("line", ODD)
def test_fields_that_are_not_read_may_be_odd(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(line)
    ingest(tmp_path / "out", params(tmp_path / "a.jsonl"))
    assert manifest(tmp_path / "out")["records_in"] == 1


@pytest.mark.parametrize(("line", "reason"), LINES)
def test_a_bad_line_is_an_error_or_an_entry(tmp_path: Path, line: bytes, reason: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*GOOD, line, *GOOD]))
    with pytest.raises(ValueError, match=r"a\.jsonl:4: ") as failure:
        ingest(tmp_path / "out", params(tmp_path / "a.jsonl"))
    assert len(str(failure.value)) < 1000
    print(failure.value)  # can be encoded
    ingest(tmp_path / "out", quarantining(tmp_path / "a.jsonl"))
    assert manifest(tmp_path / "out")["records_in"] == 7
    (entry,) = quarantine(tmp_path / "out")
    assert (entry["file"], entry["line"], entry["reason"]) == ("a.jsonl", 4, reason)
    assert entry["excerpt"] == line[:200]
    assert texts(tmp_path / "out") == ["good", "a\0b", "x"] * 2


def _link(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def _broken_footer(path: Path) -> None:
    pl.DataFrame({"text": ["a"] * 1000}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])


def _without_text(path: Path) -> None:
    pl.DataFrame({"words": ["a"]}).write_parquet(path)


def _same_column_twice(path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)


FILES: list[tuple[str, Callable[[Path], object], str]] = [
    ("b.jsonl", lambda path: path.touch(), "empty"),
    ("b.jsonl.gz", lambda path: path.write_bytes(gzip.compress(b"")), "empty"),
    ("b.txt.gz", lambda path: path.write_bytes(gzip.compress(b"")), "empty"),
    ("b.jsonl", _link("nowhere"), "broken_link"),
    ("b.jsonl", _link("b.jsonl"), "unreadable"),
    ("b.jsonl", os.mkfifo, "not_a_file"),
    ("b.jsonl", _link("/dev/zero"), "not_a_file"),
    ("b.jsonl/c.txt", lambda path: [path.parent.mkdir(), path.symlink_to("c.txt")], "unreadable"),
    ("b", _link("."), "repeated"),
    ("b", _link(".."), "repeated"),
    ("c", _link("deep"), "repeated"),
    ("b.parquet", lambda path: path.write_bytes(b"PAR1PAR1"), "damaged"),
    ("b.parquet", _broken_footer, "damaged"),
    ("b.parquet", _without_text, "no_schema"),
    ("b.parquet", _same_column_twice, "key_twice"),
    ("b.parquet", lambda path: pl.DataFrame({"text": ["a"]}).clear().write_parquet(path), "empty"),
    ("b.jsonl.gz", lambda path: path.write_bytes(gzip.compress(b"{}" * 999)[:-9]), "truncated"),
    ("b.jsonl.zst", lambda path: path.write_bytes(b"not zstd"), "damaged"),
]


@pytest.mark.parametrize(("name", "make", "reason"), FILES)
@pytest.mark.parametrize("shard_mb", [4, 1e-6])
def test_a_bad_file_is_an_error_or_an_entry(
    tmp_path: Path, name: str, make: Callable[[Path], object], reason: str, shard_mb: float
) -> None:
    source = tmp_path / "in"
    write_jsonl(source / "deep" / "a.jsonl", [{"text": "good"}])
    make(source / name)
    with pytest.raises(ValueError, match=rf"in/{name} "):
        ingest(tmp_path / "out", params(source, shard_mb))
    ingest(tmp_path / "out", quarantining(source, shard_mb))
    manifest(tmp_path / "out")
    assert [(row["file"], row["line"], row["reason"]) for row in quarantine(tmp_path / "out")] == [(name, None, reason)]
    assert texts(tmp_path / "out") == ["good"]


@pytest.mark.parametrize("content", [b"\n \r\n", b"\xef\xbb\xbf", b"\n" * 3_000_000])
def test_a_file_of_blank_lines_is_an_entry(tmp_path: Path, content: bytes) -> None:
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "good"}]).parent
    (source / "b.jsonl").write_bytes(content)
    ingest(tmp_path / "out", quarantining(source))
    assert manifest(tmp_path / "out")["quarantined"] == {"empty": 1}
    assert texts(tmp_path / "out") == ["good"]


def test_a_folder_may_be_called_like_a_file_and_hidden_names_are_left_aside(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "x.jsonl" / "part.jsonl", [{"text": "inside"}])
    write_jsonl(tmp_path / "in" / ".x" / "part.jsonl", [{"text": "hidden"}])
    ingest(tmp_path / "out", params(tmp_path / "in"))
    assert texts(tmp_path / "out") == ["inside"]


def test_a_name_that_is_not_utf8_is_an_entry_in_print(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "good"}]).parent
    with open(os.fsencode(source) + b"/\xff.jsonl", "w") as file:
        file.write("{}\n")
    ingest(tmp_path / "out", quarantining(source))
    (entry,) = quarantine(tmp_path / "out")
    assert (entry["file"], entry["reason"]) == (r"\udcff.jsonl", "bad_name")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs users")
def test_what_may_not_be_read_is_an_entry(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "good"}]).parent
    write_jsonl(source / "closed.jsonl", [{"text": "secret"}]).chmod(0)
    write_jsonl(source / "folder" / "b.jsonl", [{"text": "secret"}])
    (source / "folder").chmod(0)
    try:
        with unprivileged(tmp_path):
            ingest(tmp_path / "out", quarantining(source))
            found = [(row["file"], row["reason"]) for row in quarantine(tmp_path / "out")]
    finally:
        (source / "folder").chmod(0o755)
    assert found == [("closed.jsonl", "unreadable"), ("folder", "unreadable")]


def test_when_all_is_bad_there_is_nothing_to_hand_on(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"holds no records; 1 are in quarantine: {'no_schema': 1}"):
        ingest(tmp_path / "out", quarantining(tmp_path / "a.jsonl"))
    for source in ("/dev/zero", tmp_path / "fifo"):
        if source != "/dev/zero":
            os.mkfifo(source)
        with pytest.raises(ValueError, match="does not exist as a file or a folder"):
            ingest(tmp_path / "out", quarantining(Path(source)))


def test_bad_rows_of_parquet_are_entries(tmp_path: Path) -> None:
    words = pa.array([b"good", b"\xff", None, b"x" * 1_000_001, b"good"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": words}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet, row 2: not UTF-8"):
        ingest(tmp_path / "out", params(tmp_path / "a.parquet"))
    ingest(tmp_path / "out", quarantining(tmp_path / "a.parquet"))
    assert manifest(tmp_path / "out")["records_in"] == 5
    found = [(row["line"], row["reason"]) for row in quarantine(tmp_path / "out")]
    assert found == [(2, "not_utf8"), (3, "bad_field"), (4, "too_large")]


@pytest.mark.parametrize("row_group_size", [1, 7, 100_000])
def test_row_groups_of_any_size_make_the_same_records(tmp_path: Path, row_group_size: int) -> None:
    words = [f"{number} {'x' * (number % 90)}" for number in range(2000)]
    pq.write_table(pa.table({"text": words}), tmp_path / "a.parquet", row_group_size=row_group_size)
    ingest(tmp_path / "out", params(tmp_path / "a.parquet", shard_mb=0.01))
    assert texts(tmp_path / "out") == words
    manifest(tmp_path / "out")


def test_a_dictionary_that_expands_is_a_bomb(tmp_path: Path) -> None:
    table = pa.table({"text": ["x" * 100_000] * 1000})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet holds more than 200 times its"):
        ingest(tmp_path / "out", params(tmp_path / "a.parquet"))


@pytest.mark.parametrize("column", ["text", "group"])
def test_a_row_of_any_length_out_of_a_dictionary_is_a_bomb_and_takes_no_memory(tmp_path: Path, column: str) -> None:
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "good"}]).parent
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int32()), pa.array(["x" * 20_000_000]))
    table = pa.table({"text": ["good"] * 256} | {column: repeated})
    pq.write_table(table, source / "b.parquet", compression="zstd", store_schema=False)  # or Arrow leaves it encoded
    assert _peak_kb(source, tmp_path / "out", max_record_mb=8) < 700_000  # eight rows of 20 MB, of 256
    assert manifest(tmp_path / "out")["quarantined"] == {"bomb": 1, "too_large": 1}
    assert texts(tmp_path / "out") == ["good"]


def test_rows_of_lists_out_of_a_dictionary_are_a_bomb_and_take_no_memory(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "good"}]).parent
    contents = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array(["x" * 2_000_000]))
    messages = pa.StructArray.from_arrays([pa.array(["user", "assistant"] * 200), contents], names=["role", "content"])
    lists = pa.ListArray.from_arrays(pa.array(range(0, 401, 50), pa.int32()), messages)
    pq.write_table(pa.table({"messages": lists}), source / "b.parquet", compression="zstd", store_schema=False)
    assert _peak_kb(source, tmp_path / "out", max_record_mb=8) < 700_000  # one row of 100 MB, of eight
    assert manifest(tmp_path / "out")["quarantined"] == {"bomb": 1, "too_large": 1}


def test_a_map_counts_towards_a_bomb(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "good"}])
    maps = pa.array([[("key", "x" * 100_000)]] * 1000, pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"text": maps}), tmp_path / "in" / "b.parquet")
    ingest(tmp_path / "out", quarantining(tmp_path / "in"))
    assert manifest(tmp_path / "out")["quarantined"]["bomb"] == 1


def test_bad_rows_count_towards_a_bomb(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "good"}])
    table = pa.table({"prompt": ["x" * 100_000] * 1000, "completion": pa.nulls(1000, pa.string())})
    pq.write_table(table, tmp_path / "in" / "b.parquet")
    ingest(tmp_path / "out", quarantining(tmp_path / "in"))
    assert manifest(tmp_path / "out")["quarantined"] == {"bad_field": 11, "bomb": 1}


def test_many_large_rows_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    table = pa.table({"text": [f"{number} {'x' * 5_000_000}" for number in range(100)]})
    pages = {"write_batch_size": 1, "data_page_size": 1 << 20}  # a row each, or all would be one page
    pq.write_table(table, tmp_path / "in" / "a.parquet", compression="zstd", use_dictionary=False, **pages)
    assert _peak_kb(tmp_path / "in", tmp_path / "out", max_record_mb=8, max_expansion=1e6) < 500_000  # of 500 MB, twice
    assert [text[:4].split()[0] for text in texts(tmp_path / "out")] == [str(number) for number in range(100)]


def test_long_groups_fill_a_shard_as_texts_do(tmp_path: Path) -> None:
    table = pa.table({"text": ["good"] * 20, "group": [f"{number}{'x' * 900_000}" for number in range(20)]})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    ingest(tmp_path / "out", params(tmp_path / "a.parquet", max_expansion=1e6))
    assert len(list((tmp_path / "out").glob("documents-*"))) == 5  # four of 0.9 MB in each
    manifest(tmp_path / "out")


def _peak_kb(source: Path, out: Path, **settings: float) -> int:
    """The most memory that a process had which put `source` through ingest."""
    code = (
        "import json, sys; from pathlib import Path\n"
        "from tests.pipeline.ingest.stage import ingest, quarantining\n"
        "ingest(Path(sys.argv[2]), quarantining(Path(sys.argv[1]), **json.loads(sys.argv[3])))\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    command = [sys.executable, "-c", code, str(source), str(out), json.dumps(settings)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def test_a_line_of_any_length_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.jsonl"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.write(b'{"text": "good"}\n{"text": "')
        file.truncate(1_000_000_000)  # NULs, a sparse file
        file.seek(0, os.SEEK_END)
        file.write(b'"}\n{"text": "good"}\n')
    assert _peak_kb(path.parent, tmp_path / "out") < 400_000  # most of it Polars and Arrow
    assert texts(tmp_path / "out") == ["good"] * 2
    assert [(row["line"], row["reason"]) for row in quarantine(tmp_path / "out")] == [(2, "too_large")]
