"""Parquet: what the pages say of themselves, and rows that are measured before they are made."""

from __future__ import annotations

import io
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.ingest import parquet_rows
from pipeline.ingest.parquet_chunks import find_way, read_chunk
from pipeline.ingest.parquet_pages import HEADER_BUFFER, read_pages
from pipeline.ingest.parquet_rows import TooLarge, open_parquet, read_rows
from pipeline.ingest.parquet_sizes import python_sizes
from pipeline.sources import BadFileError, File, files
from tests.pipeline.ingest.stage import ingest, manifest, params, quarantine, quarantining, rows, texts, write_jsonl
from tests.pipeline.ingest.test_untrusted import _peak_kb

ASKED = "what is asked " * 20


def conversations(count: int) -> list[dict[str, Any]]:
    """Some of their texts repeat, some are empty, some rows have no turns."""
    rng = random.Random(count)
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ""}, {"role": None, "content": "é"}]
    own = ({"role": "assistant", "content": f"{number} " * rng.randrange(99)} for number in range(count))
    return [
        {"messages": None if rng.random() < 0.1 else [*rng.choices(turns, k=rng.randrange(4)), next(own)]}
        for _ in range(count)
    ]


def read(path: Path, most: int = 0, expanded: int = 0) -> list[Any]:
    file = File(str(path), path.name, "input", None, path.stat().st_size)
    with open_parquet(file) as table:
        return list(read_rows(file, table, range(table.num_row_groups), table.schema_arrow.names, most, expanded))


WRITERS = [
    {},
    {"use_dictionary": False, "version": "1.0"},
    {"data_page_version": "2.0", "compression": "zstd", "data_page_size": 500},
    {"write_page_index": True, "write_page_checksum": True, "dictionary_pagesize_limit": 1000, "data_page_size": 500},
    {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
    {"use_dictionary": False, "column_encoding": "DELTA_LENGTH_BYTE_ARRAY", "data_page_version": "2.0"},
]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("row_group_size", [7, 1000])
@pytest.mark.parametrize("batch_bytes", [100_000, parquet_rows.BATCH_BYTES])
def test_rows_of_lists_are_what_was_written(
    tmp_path: Path, writer: dict[str, Any], row_group_size: int, batch_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", batch_bytes)
    wanted = conversations(300)
    table = pa.Table.from_pylist(wanted)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size, **writer)
    assert read(tmp_path / "a.parquet", most=1 << 29, expanded=1 << 29) == wanted


@pytest.mark.parametrize("writer", WRITERS)
def test_pages_hold_what_the_footer_sums_up(writer: dict[str, Any]) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(conversations(300)), stream, **writer)
    group = pq.ParquetFile(stream).metadata.row_group(0)
    for number in range(group.num_columns):
        chunk = group.column(number)
        pages = list(read_pages(stream, chunk))
        assert sum(page.values for page in pages if not page.is_dictionary) == chunk.num_values
        headers = chunk.total_uncompressed_size - sum(page.size for page in pages)
        assert 10 * len(pages) < headers < 300 * len(pages)
        assert [page.is_dictionary for page in pages].count(True) == ("use_dictionary" not in writer)


def test_a_cut_page_header_is_damage(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "good"}])
    pq.write_table(pa.Table.from_pylist(conversations(300)), tmp_path / "in" / "b.parquet")
    chunk = pq.ParquetFile(tmp_path / "in" / "b.parquet").metadata.row_group(0).column(0)
    data = bytearray((tmp_path / "in" / "b.parquet").read_bytes())
    data[chunk.dictionary_page_offset + 1] = 0xFF
    (tmp_path / "in" / "b.parquet").write_bytes(data)
    ingest(tmp_path / "out", quarantining(tmp_path / "in"))
    assert manifest(tmp_path / "out")["quarantined"] == {"damaged": 1}


def lists_of(contents: pa.Array, lengths: list[int]) -> pa.Table:
    """Conversations of turns with these contents."""
    roles = pa.DictionaryArray.from_arrays(pa.array([0, 1] * (len(contents) // 2), pa.int32()), ["user", "assistant"])
    ends = pa.array([sum(lengths[:index]) for index in range(len(lengths) + 1)], pa.int32())
    return pa.table(
        {
            "messages": pa.ListArray.from_arrays(
                ends, pa.StructArray.from_arrays([roles, contents], names=["role", "content"])
            )
        }
    )


@pytest.mark.parametrize("store_schema", [False, True])
def test_a_row_that_names_a_long_entry_many_times_takes_no_memory(tmp_path: Path, store_schema: bool) -> None:
    """4 GB of a file of some kilobytes; the rows beside it are read."""
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "good"}]).parent
    entries = pa.array(["short", "x" * 1_000_000])
    contents = pa.DictionaryArray.from_arrays(pa.array([0] * 4 + [1] * 4000 + [0] * 2, pa.int32()), entries)
    table = lists_of(contents, [2, 2, 4000, 2])
    pq.write_table(table, source / "b.parquet", compression="zstd", store_schema=store_schema)
    assert (source / "b.parquet").stat().st_size < 10_000
    assert _peak_kb(source, tmp_path / "out", max_record_mb=8, max_expansion=1e9) < 500_000
    assert manifest(tmp_path / "out")["quarantined"] == {"too_large": 1}
    assert [len(row[4]) for row in rows(tmp_path / "out", "conversations")] == [2, 2, 2]


def test_a_row_of_millions_of_nulls_takes_no_memory(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "good"}]).parent
    turns = pa.nulls(3_000_000, pa.struct([("role", pa.string()), ("content", pa.string())]))
    lists = pa.ListArray.from_arrays(pa.array([0, len(turns)], pa.int32()), turns)
    pq.write_table(pa.table({"messages": lists}), source / "b.parquet")
    assert _peak_kb(source, tmp_path / "out", max_expansion=1e9) < 500_000
    assert manifest(tmp_path / "out")["quarantined"] == {"too_large": 1}


def test_lists_of_more_values_than_memory_is_meant_for_are_a_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 100_000)
    small = {"use_dictionary": False, "data_page_size": 1000, "write_batch_size": 10}
    pq.write_table(pa.Table.from_pylist(conversations(3000)), tmp_path / "a.parquet", **small)
    with pytest.raises(BadFileError, match="has a row group, number 1, of which one row may take"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("store_schema", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string()),
        pa.large_list(pa.struct([("a", pa.large_binary())])),
        pa.list_(pa.string(), 1),
        pa.map_(pa.string(), pa.string()),
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
        pa.list_(pa.string_view()),
        pa.list_view(pa.string()),
        pa.large_list_view(pa.string()),
        pa.opaque(pa.list_(pa.string()), "some", "one"),
    ],
    ids=str,
)
def test_a_row_is_measured_before_it_is_made(
    tmp_path: Path, kind: pa.DataType, store_schema: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 60_000)
    monkeypatch.setattr(parquet_rows, "find_way", lambda *given: find_way(*given[:-1], 1 << 29))

    def value(size: int) -> list[Any]:
        if pa.types.is_map(kind):
            return [("k", "x" * size)]
        return [{"a": b"x" * size}] if pa.types.is_large_list(kind) else ["x" * size]

    texts = pa.array([value(size) for size in (58_000, 1, 62_000, 58_001)], getattr(kind, "storage_type", kind))
    texts = pa.ExtensionArray.from_storage(kind, texts) if isinstance(kind, pa.BaseExtensionType) else texts
    table = pa.table({"text": texts, "group": ["1", "x" * 500, "3", "4"]})
    pq.write_table(table, tmp_path / "a.parquet", store_schema=store_schema, use_dictionary=False)
    *found, third, fourth = read(tmp_path / "a.parquet")
    assert [*found, fourth] == [table.to_pylist()[place] for place in (0, 1, 3)]
    assert isinstance(third, TooLarge)
    assert 62_000 < third.size < 64_000


def test_a_value_that_python_cannot_hold_is_an_entry(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "good"}])
    table = pa.table({"text": ["fine", "odd"], "group": pa.array([0, 2**30], pa.date32())})
    pq.write_table(table, tmp_path / "in" / "b.parquet")
    ingest(tmp_path / "out", quarantining(tmp_path / "in"))
    assert manifest(tmp_path / "out")["quarantined"] == {"bad_field": 2}
    assert [entry["message"][:14] for entry in quarantine(tmp_path / "out")] == ["field group mu", "cannot be read"]


def test_dictionaries_of_every_row_group_are_read(tmp_path: Path) -> None:
    """Arrow cannot put lists of two dictionaries into one batch."""
    contents = pa.array([f"number {number}" for number in range(400)]).dictionary_encode()
    pq.write_table(lists_of(contents, [2] * 200), tmp_path / "a.parquet", row_group_size=30)
    ingest(tmp_path / "out", params(tmp_path / "a.parquet"))
    found = [turn["content"] for row in rows(tmp_path / "out", "conversations") for turn in row[4]]
    assert found == [f"number {number}" for number in range(400)]


def test_two_fields_of_one_name_are_a_fault(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "good"}])
    turns = pa.StructArray.from_arrays([pa.array(["user"]), pa.array(["x"])], names=["role", "role"])
    lists = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), turns)
    pq.write_table(pa.table({"messages": lists}), tmp_path / "in" / "b.parquet")
    ingest(tmp_path / "out", quarantining(tmp_path / "in"))
    assert manifest(tmp_path / "out")["quarantined"] == {"key_twice": 1}
    assert texts(tmp_path / "out") == ["good"]


TURNS = 2 * 10_000
NUMBERS: dict[str, pa.Array] = {
    "int64": pa.array(range(TURNS)),
    "int64 of a few": pa.array([number % 9 for number in range(TURNS)]),
    "double": pa.array([number / 2 for number in range(TURNS)]),
    "bool": pa.array([number % 2 == 0 for number in range(TURNS)]),
    "binary(16)": pa.array([b"%016d" % number for number in range(TURNS)], pa.binary(16)),
    "decimal": pa.array(range(TURNS)).cast(pa.decimal128(19)),
    "uuid": pa.array([b"%016d" % number for number in range(TURNS)], pa.binary(16)).cast(pa.uuid()),
    "json": pa.array([f'"{number}"' for number in range(TURNS)]).cast(pa.json_()),
    "map": pa.array([[("a", number)] for number in range(TURNS)], pa.map_(pa.string(), pa.int64())),
}


def test_rows_without_text_fill_a_shard_too(tmp_path: Path) -> None:
    """A file of some hundred bytes may have millions of them, which take memory while they are held."""
    pq.write_table(pa.table({"text": [""] * 250_000}), tmp_path / "empty.parquet")
    ingest(tmp_path / "out", params(tmp_path / "empty.parquet"))
    files = sorted((tmp_path / "out").glob("documents-*.parquet"))
    assert [pq.read_metadata(file).num_rows for file in files] == [100_000, 100_000, 50_000]


@pytest.mark.parametrize("name", NUMBERS)
def test_conversations_may_have_numbers_in_their_turns(tmp_path: Path, name: str) -> None:
    texts = pa.array([f"text {number}" for number in range(TURNS)])
    turns = pa.StructArray.from_arrays([texts, texts, NUMBERS[name]], names=["role", "content", "more"])
    lists = pa.ListArray.from_arrays(pa.array(range(0, TURNS + 1, 2), pa.int32()), turns)
    table = pa.table({"messages": lists, "group": pa.array(range(len(lists)))})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == table.to_pylist()


def test_a_flat_column_beside_lists_has_one_value_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 8_000_000)
    rng = random.Random(0)
    answers = [rng.randbytes(3500).hex() for _ in range(1300)]
    messages = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}] for answer in answers]
    table = pa.table({"messages": messages, "context": ["what is known " * 500] * len(messages)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == table.to_pylist()


@pytest.mark.parametrize("lists", [False, True])
def test_few_rows_at_a_time_of_long_entries_in_a_flat_column(
    tmp_path: Path, lists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    batches = parquet_rows._batches
    monkeypatch.setattr(parquet_rows, "_batches", lambda *given: asked.append(given[-1]) or batches(*given))
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 1_000_000)
    table = pa.table({"text": ["x" * 200_000] * 100} | ({"messages": [["a"]] * 100} if lists else {}))
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == table.to_pylist()
    assert asked == [4]


def pages_of(chunk: Any) -> Iterator[int]:
    """Where they begin, in a file of pyarrow's defaults whose column has a dictionary and one page."""
    yield chunk.dictionary_page_offset
    yield chunk.data_page_offset


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_no_change_of_a_page_header_stops_the_stage(tmp_path: Path, version: str) -> None:
    pq.write_table(pa.Table.from_pylist(conversations(9)), tmp_path / "a.parquet", data_page_version=version)
    data = (tmp_path / "a.parquet").read_bytes()
    group = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0)
    found: Counter[str] = Counter()
    for number in range(group.num_columns):
        for start in pages_of(group.column(number)):
            for place in range(start, start + 24):
                for change in {0x00, 0x1C, 0x2C, 0x5C, 0x15, 0xFF, *(data[place] ^ 1 << bit for bit in range(8))}:
                    changed = bytearray(data)
                    changed[place] = change
                    (tmp_path / "b.parquet").write_bytes(changed)
                    try:
                        read(tmp_path / "b.parquet")
                        found["read"] += 1
                    except BadFileError as error:
                        found[error.reason] += 1
    assert found.keys() == {"read", "damaged"}


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_every_change_of_a_page_header_is_read_or_malformed(version: str) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(conversations(9)), stream, data_page_version=version)
    data = stream.getvalue()
    chunk = pq.ParquetFile(stream).metadata.row_group(0).column(1)
    refused = 0
    for start in pages_of(chunk):
        for place in range(start, start + 24):
            for change in range(256):
                changed = bytearray(data)
                changed[place] = change
                try:
                    assert all(page.size >= 0 <= page.values for page in read_pages(io.BytesIO(changed), chunk))
                except OSError:
                    refused += 1
    assert refused > 1000


def turns_of(contents: pa.Array) -> pa.Table:
    """One row of them."""
    turns = pa.StructArray.from_arrays([pa.nulls(len(contents), pa.string()), contents], names=["role", "content"])
    return pa.table({"messages": pa.ListArray.from_arrays(pa.array([0, len(turns)], pa.int32()), turns)})


BOMBS: dict[str, tuple[pa.Array, dict[str, Any], str]] = {
    "values that begin as the one before": (
        pa.array(["x" * 100_000] * 60),
        {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
        "one page of messages.list.element.content may come to 6,",
    ),
    "a large page": (
        pa.array(["x" * 50_000] * 30),
        {"use_dictionary": False, "compression": "zstd"},
        "one page of messages.list.element.content takes 1,500,",
    ),
    "entries that are no texts": (pa.array([b"x" * 10_000] * 200, pa.binary(10_000)), {}, "one row may take"),
    "levels": (pa.nulls(50_000, pa.string()), {}, "one row may take"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_row_that_arrow_would_make_whole_is_a_bomb(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 1_000_000)
    contents, writer, message = BOMBS[name]
    pq.write_table(turns_of(contents), tmp_path / "a.parquet", **writer)
    assert (tmp_path / "a.parquet").stat().st_size < 200_000
    with pytest.raises(BadFileError, match=message) as raised:
        read(tmp_path / "a.parquet")
    assert raised.value.reason == "bomb"


def test_what_cannot_be_measured_is_damage() -> None:
    outside = pa.DictionaryArray.from_arrays(pa.array([0, 50]), ["x"], safe=False)
    with pytest.raises(pa.ArrowException, match="not one of the 1 entries"):
        python_sizes(outside)
    with pytest.raises(pa.ArrowException, match="of type sparse_union"):
        python_sizes(pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array(["x"])]))


def integer(value: int) -> bytes:
    """In Thrift's compact protocol."""
    value, found = value << 1, b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def numbers(*values: int) -> bytes:
    """The fields 1, 2, …, of 32 bits."""
    return b"".join(b"\x15" + integer(value) for value in values)


def read_header(header: bytes, count: int = 1) -> list[tuple[Any, ...]]:
    """The pages of a chunk with this header as often as it takes."""
    size = count * len(header)
    chunk = SimpleNamespace(
        data_page_offset=0, has_dictionary_page=False, total_compressed_size=size, num_values=count * 3
    )
    return [tuple(page) for page in read_pages(io.BytesIO(header * count), chunk)]


PAGE = numbers(0, 100, 0) + b"\x2c" + numbers(3, 8) + b"\0"  # a data page of 3 values in the dictionary
V2 = b"\x3c" + numbers(9, 9, 9, 9) + b"\0"
HEADERS: dict[str, tuple[bytes, str]] = {
    "as it should be": (PAGE, ""),
    "another field": (PAGE + b"\x4c\0", ""),
    "what another type of page has": (PAGE + V2, ""),
    "only what another type of page has": (numbers(0, 100, 0) + b"\x5c" + numbers(3, 8) + b"\0", "malformed"),
    "a number instead of the struct": (numbers(0, 100, 0) + b"\x25\x06", "malformed"),
    "the size again, of 16 bits": (PAGE + b"\x04" + integer(2) + integer(7), ""),
    "the size again, of 32 bits, by a number that Arrow cuts": (PAGE + b"\x05" + integer(65538) + integer(7), "65538"),
    "a size that Arrow cuts": (numbers(0, 2**32 + 100, 0) + PAGE[7:], "malformed"),
    "no number of values": (numbers(0, 100, 0) + b"\x2c\x25\x10\0", "malformed"),
    "a long field": (PAGE + b"\x38" + integer(2**24)[:-1] + b"\x10" + b"x" * 2**24, "longer than 16,777,216 bytes"),
    "a long list": (PAGE + b"\x39\xf3\xff\xff\xff\x0f" + b"x" * 2**10, "the file ends in a page header"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_page_header_is_read_as_arrow_reads_it_or_refused(name: str) -> None:
    header, message = HEADERS[name]
    if not message:
        assert read_header(header + b"\0", count=2) == [(False, 8, 3, 100)] * 2
        return
    with pytest.raises(OSError, match=message):
        read_header(header + b"\0")


def test_very_many_pages_take_no_memory() -> None:
    header = numbers(0, 0, 0) + b"\x2c" + numbers(0, 0) + b"\0\0"
    chunk = SimpleNamespace(
        data_page_offset=0, has_dictionary_page=False, total_compressed_size=10_000 * len(header), num_values=1
    )
    leaf = SimpleNamespace(path="text", physical_type="BYTE_ARRAY", max_repetition_level=1)
    stream = io.BytesIO(10_000 * header)
    tracemalloc.start()
    try:
        with pytest.raises(OSError, match="the file ends"):
            read_chunk(stream, leaf, chunk)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_page_headers_of_a_remote_file_are_asked_for_in_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    readinto = files._Guarded.readinto
    monkeypatch.setattr(
        files._Guarded, "readinto", lambda self, buffer: asked.append(len(buffer)) or readinto(self, buffer)
    )
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(conversations(300)), stream)
    MemoryFileSystem().pipe("/parquet/a.parquet", stream.getvalue())
    file = File("memory://parquet/a.parquet", "a.parquet", "input", None, len(stream.getvalue()))
    with open_parquet(file) as table:
        assert len(list(read_rows(file, table, [0], ["messages"], 0, 0))) == 300
    assert HEADER_BUFFER in asked
