"""Parquet, read as a stream: a row group may be of any size, and the file may say anything of itself.

Arrow's reader is used: it reads a page at a time, and raises where a file is not what it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.parquet as pq

from pipeline.chat.schemas import FIELDS, find_schema
from pipeline.ingest.blocks import bomb
from pipeline.ingest.parquet_rows import Row, TooLarge, open_parquet, read_rows
from pipeline.ingest.parsing import bad_record, parse_fields, too_large
from pipeline.ingest.pieces import BadRecord, Bounds, Outcome, Record, content_bytes, record_bytes
from pipeline.sources import BadFileError, File


@dataclass(frozen=True)
class ParquetRows:
    """The rows of the row groups `first` to `last` (None: the last of the file); the first of them is `number`."""

    file: File
    size: int
    first: int = 0
    last: int | None = None
    number: int = 1

    @property
    def name(self) -> str:
        """That of its file."""
        return self.file.name

    def read(self, bounds: Bounds) -> Iterator[Outcome]:
        """Read it."""
        number, total = self.number, 0
        most = max(bounds.record_bytes, bounds.expansion * self.file.size)
        with open_parquet(self.file) as table:
            groups = range(self.first, table.num_row_groups if self.last is None else self.last)
            for row in read_rows(self.file, table, groups, _columns(self.file, table), 2 * bounds.record_bytes, most):
                outcome, size = self._outcome(number, row, bounds)
                yield outcome
                number += 1
                total += size
                if total > most:
                    raise bomb(self.file, bounds)

    def _outcome(self, number: int, row: Row, bounds: Bounds) -> tuple[Record | BadRecord, int]:
        """What a row comes to, and its bytes."""
        if isinstance(row, UnicodeDecodeError):
            message = f"not UTF-8: {row.reason}"
            return bad_record(self.file, number, "not_utf8", message, row.object, unit="row"), len(row.object)
        if isinstance(row, ValueError | OverflowError):
            return bad_record(self.file, number, "bad_field", f"cannot be read: {row}", unit="row"), 0
        if isinstance(row, TooLarge):
            return too_large(self.file, number, row.size, bounds.record_bytes, unit="row"), row.size
        outcome = parse_fields(self.file, number, row, unit="row")
        if isinstance(outcome, BadRecord):
            return outcome, _text_bytes(row)
        size = record_bytes(outcome)
        if size > bounds.record_bytes:
            return too_large(self.file, number, size, bounds.record_bytes, unit="row"), size
        return outcome, size


def row_groups(file: File) -> list[tuple[int, int]]:
    """The rows and the uncompressed bytes of each row group, as the file says.

    Raises:
        BadFileError: it is not Parquet.
    """
    with open_parquet(file) as table:
        groups = (table.metadata.row_group(index) for index in range(table.num_row_groups))
        return [(group.num_rows, group.total_byte_size) for group in groups]


def cut_groups(file: File, step: int, groups: list[tuple[int, int]]) -> Iterator[ParquetRows]:
    """The file in runs of row groups of about `step` bytes."""
    first, number, rows, size = 0, 1, 0, 0
    for index, (more_rows, more_bytes) in enumerate(groups):
        if size and size + more_bytes > step:
            yield ParquetRows(file, size, first, index, number)
            first, number, rows, size = index, number + rows, 0, 0
        rows, size = rows + more_rows, size + more_bytes
    yield ParquetRows(file, size, first, len(groups), number)


def _columns(file: File, table: pq.ParquetFile) -> list[str]:
    """Those that a schema reads."""
    names = table.schema_arrow.names
    try:
        find_schema(names)
    except ValueError as error:
        raise BadFileError(file, "no_schema", f"has no column to read: {error}") from None
    wanted = sorted(set(names) & (FIELDS | {"group"}))
    if twice := [name for name in wanted if names.count(name) > 1]:
        raise BadFileError(file, "key_twice", f"has two columns {twice[0]}: leave one")
    paths = Counter(table.schema.column(number).path for number in range(len(table.schema)))
    if twice := [path for path, count in paths.items() if count > 1 and path.split(".")[0] in wanted]:
        raise BadFileError(file, "key_twice", f"has two fields {twice[0]}: leave one")
    return wanted


def _text_bytes(value: object) -> int:
    """The text in the fields of a row, in bytes; a map is a list of tuples."""
    if isinstance(value, str):
        return content_bytes(value)
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_text_bytes, value.values()))
    return sum(map(_text_bytes, value)) if isinstance(value, list | tuple) else 0
