"""The formats of a user's own files: JSON lines, Parquet, plain text. Each cuts a file into pieces that read alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from pipeline.chat.schemas import FIELDS, find_schema, parse_record, string_field
from pipeline.ingest.pieces import Piece, Reading, Record

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SAMPLE_ROWS = 1000
INPUT = "input"
"""The name of the source that a user's own files make up."""


@dataclass(frozen=True)
class File:
    """A file of the source: its path, its name relative to the source, and the split its name fixes."""

    path: Path
    name: str
    split: str | None


@dataclass(frozen=True)
class JsonLines:
    """The whole lines in bytes `start` to `start + size` of a file; the first is line `line`."""

    file: File
    start: int
    size: int
    line: int

    def read(self) -> Reading:
        """Read it."""
        with self.file.path.open("rb") as stream:
            stream.seek(self.start)
            data = stream.read(self.size)
        lines = enumerate(_without_mark(data, self.start).split(b"\n"), start=self.line)
        return Reading([self._record(number, line) for number, line in lines if line.strip()], Counter())

    def _record(self, number: int, line: bytes) -> Record:
        where = f"{self.file.path}:{number}"
        try:
            fields = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: not UTF-8: {error.reason}; write the file as UTF-8") from error
        except RecursionError as error:
            raise ValueError(f"{where}: nested too deeply to be read") from error
        except ValueError as error:
            raise ValueError(f"{where}: not JSON: {error}; each line must be one whole JSON object") from error
        if not isinstance(fields, dict):
            raise ValueError(f"{where}: not a JSON object, but {type(fields).__name__}")
        return _parse(self.file, number, fields, where)


@dataclass(frozen=True)
class ParquetRows:
    """`count` rows of a file from row `start` (from 0) on."""

    file: File
    start: int
    count: int
    size: int

    def read(self) -> Reading:
        """Read it."""
        table = pl.scan_parquet(self.file.path, glob=False)
        wanted = [name for name in table.collect_schema().names() if name in FIELDS | {"group"}]
        rows = table.select(wanted).slice(self.start, self.count).collect().iter_rows(named=True)
        numbered = enumerate(rows, start=self.start + 1)
        records = [_parse(self.file, number, row, f"{self.file.path}, row {number}") for number, row in numbered]
        return Reading(records, Counter())


@dataclass(frozen=True)
class TextFile:
    """A file of plain text: one document."""

    file: File
    size: int

    def read(self) -> Reading:
        """Read it."""
        data = _without_mark(self.file.path.read_bytes(), 0)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ValueError(f"{self.file.path}:{line}: not UTF-8: {error.reason}; write the file as UTF-8") from error
        return Reading([Record(f"{self.file.name}:1", INPUT, self.file.name, self.file.split, text)], Counter())


def cut_json_lines(file: File, shard_bytes: int) -> Iterator[Piece]:
    """The file in blocks of about `shard_bytes`, cut at line ends."""
    start, line = 0, 1
    with file.path.open("rb") as stream:
        while block := stream.read(shard_bytes):
            block += stream.readline()
            yield JsonLines(file, start, len(block), line)
            start += len(block)
            line += block.count(b"\n")


def cut_parquet(file: File, shard_bytes: int) -> Iterator[Piece]:
    """The file in blocks of rows of about `shard_bytes`, going by the size of its first rows.

    Raises:
        ValueError: the file is not Parquet, or its columns fit no schema.
    """
    try:
        table = pl.scan_parquet(file.path, glob=False)
        total = table.select(pl.len()).collect().item()
        sample = table.head(SAMPLE_ROWS).collect()
    except PolarsError as error:
        raise ValueError(f"{file.path}: not a readable Parquet file: {error}") from error
    with _located(str(file.path)):
        find_schema(sample.columns)
    row_bytes = max(1, int(sample.estimated_size()) // max(1, sample.height))
    step = max(1, shard_bytes // row_bytes)
    for start in range(0, total, step):
        count = min(step, total - start)
        yield ParquetRows(file, start, count, count * row_bytes)


def cut_text(file: File, shard_bytes: int) -> Iterator[Piece]:
    """The file as it is."""
    yield TextFile(file, file.path.stat().st_size)


Cut = Callable[[File, int], Iterator[Piece]]
TEXT = [".txt", ".text", ".md", ".rst", ".tex", ".html"]
CODE = [".py", ".js", ".ts", ".java", ".c", ".h", ".cpp", ".go", ".rs", ".sh", ".sql"]
FORMATS: dict[str, Cut] = {
    ".jsonl": cut_json_lines,
    ".ndjson": cut_json_lines,
    ".parquet": cut_parquet,
    **dict.fromkeys(TEXT + CODE, cut_text),
}
"""How a file is cut, by the extension of its name."""


def _parse(file: File, number: int, fields: Mapping[str, Any], where: str) -> Record:
    record_id = f"{file.name}:{number}"
    with _located(where):
        group = fields.get("group")
        if group is None:
            group = record_id
        elif not isinstance(group, int):  # a number names a group as well as a word does
            group = string_field(fields, "group")
        return Record(record_id, INPUT, str(group), file.split, parse_record(fields))


@contextmanager
def _located(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _without_mark(data: bytes, start: int) -> bytes:
    return data.removeprefix(BYTE_ORDER_MARK) if start == 0 else data
