"""The rows of Parquet row groups, a few at a time, in memory that is bounded whatever the file says of itself.

Arrow makes all of a batch before one row is seen. In the file a text may be an entry of a dictionary that any number
of values repeat, and in a column of lists one row may have all values of its row group. So there the headers of the
pages are read first: where a row group may come to more than memory is meant for, its texts stay in their dictionaries
until each row is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.ingest.parquet_pages import DELTA_BYTE_ARRAY, DICTIONARY_ENCODINGS, Page, read_pages
from pipeline.sources import BadFileError, File

Ints = np.ndarray[Any, np.dtype[np.int64]]

BATCH_BYTES = 1 << 29
"""Of a batch, however its rows come out of a dictionary; or one row."""
FLAT_ROWS, LIST_ROWS = 8, 256
"""Of a batch, at most, of columns without lists and with lists."""
USUAL_BYTES = 1 << 24
"""Of a batch with lists, if its rows have as many values as the mean row and these the mean length of any page."""
LEVEL_BYTES = 8
"""Of a value in a list: its levels, and its place in a dictionary."""
OBJECT_BYTES = 256
"""About what Python takes for a value in a list, beside its text."""


class TooLarge(NamedTuple):
    """A row that is not made."""

    size: int
    """About what it would take, in bytes."""


Row = dict[str, Any] | ValueError | OverflowError | TooLarge
"""The fields; or why it has none."""


@contextmanager
def open_parquet(
    file: File, in_dictionaries: Sequence[str] = (), metadata: pq.FileMetaData | None = None
) -> Iterator[pq.ParquetFile]:
    """Open a file that has rows.

    Args:
        in_dictionaries: the paths of leaf columns of texts that are read as dictionaries.
        metadata: the file's footer, if it has been read before.

    Raises:
        BadFileError: it is empty; it is damaged, as it turns out now or until it is closed.
    """
    with file.open() as stream:
        try:
            table = pq.ParquetFile(
                stream,
                metadata=metadata,
                buffer_size=1 << 20,
                pre_buffer=False,
                page_checksum_verification=True,
                read_dictionary=list(in_dictionaries),
            )
            if not table.metadata.num_rows:
                raise BadFileError(file, "empty", "is empty: fill it or take it away")
            yield table
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise BadFileError(file, "damaged", f"is not readable as Parquet ({error}): bring it whole") from None


def read_rows(
    file: File, table: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str], most: int
) -> Iterator[Row]:
    """The rows of the row groups, one at a time, so that Python holds one.

    Args:
        table: `file`, opened.
        most: the bytes of a row that may be made, if more than BATCH_BYTES.

    Raises:
        BadFileError: a row group has lists that memory is not meant for.
    """
    most = max(most, BATCH_BYTES)
    schema = [table.schema.column(number) for number in range(len(table.schema))]
    leaves = [leaf for leaf in schema if leaf.path.split(".")[0] in columns]
    if not any(leaf.max_repetition_level for leaf in leaves):
        for group in groups:
            longest = sum(chunk.total_uncompressed_size for _, chunk in _chunks(table, group, columns))
            rows = BATCH_BYTES // max(1, longest)
            yield from _made(_batches(table, group, columns, min(FLAT_ROWS, rows)), None)
        return
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    with file.open() as stream, open_parquet(file, texts, table.metadata) as repeating:
        for group in groups:
            chunks = {path: list(read_pages(stream, chunk)) for path, chunk in _chunks(table, group, columns)}
            reader, rows = _way(file, table, repeating, group, chunks)
            yield from _made(_batches(reader, group, columns, rows), most)


def _way(
    file: File, table: pq.ParquetFile, repeating: pq.ParquetFile, group: int, chunks: dict[str, list[Page]]
) -> tuple[pq.ParquetFile, int]:
    """Which of two readers is to read a row group that has lists, and how many rows at a time.

    Args:
        repeating: reads texts as dictionaries.
    """
    every = [page for pages in chunks.values() for page in pages]
    plain, values = sum(page.size for page in every), sum(page.values for page in every)
    longest = {path: _entry_bytes(pages) for path, pages in chunks.items()}
    if _expanded(chunks, longest) > BATCH_BYTES:
        longest |= {path: _longest(repeating, group, path) for path, pages in chunks.items() if _in_order(pages)}
    if values * LEVEL_BYTES > BATCH_BYTES or (_expanded(chunks, longest) > BATCH_BYTES < plain):
        raise BadFileError(
            file,
            "bomb",
            f"has a row group, number {group + 1}, of which one row may take {plain + values * LEVEL_BYTES:,} bytes: "
            "write it with smaller row groups",
        )
    rows = table.metadata.row_group(group).num_rows
    usual = sum(_mean(pages, longest[path]) * sum(page.values for page in pages) for path, pages in chunks.items())
    at_a_time = int(max(1, min(LIST_ROWS, USUAL_BYTES * rows / max(1, usual))))
    return (repeating if _expanded(chunks, longest) > BATCH_BYTES else table), at_a_time


def _expanded(chunks: dict[str, list[Page]], longest: dict[str, int]) -> int:
    """The bytes of the values that are in dictionaries, at most, if every one is the longest."""
    return sum(page.values * longest[path] for path, pages in chunks.items() for page in pages if _is_repeated(page))


def _mean(pages: list[Page], longest: int) -> float:
    """Of the bytes of a value in any page, the largest."""
    means = [0.0]
    for page in pages:
        if _is_repeated(page):
            means.append(longest)
        elif page.encoding == DELTA_BYTE_ARRAY:
            means.append(page.size)  # each value may begin with the one before it
        elif not page.is_dictionary:
            means.append(page.size / max(1, page.values))
    return max(means)


def _is_repeated(page: Page) -> bool:
    return page.encoding in DICTIONARY_ENCODINGS and not page.is_dictionary


def _entry_bytes(pages: list[Page]) -> int:
    """Of an entry of the dictionary, at most."""
    return max((page.size for page in pages if page.is_dictionary), default=0)


def _in_order(pages: list[Page]) -> bool:
    """Whether values of the dictionary come, and before all others: then the first that are read are of it."""
    repeated = [_is_repeated(page) for page in pages if not page.is_dictionary]
    return any(repeated) and repeated == sorted(repeated, reverse=True)


def _longest(repeating: pq.ParquetFile, group: int, path: str) -> int:
    """The bytes of the longest entry of a dictionary."""
    for batch in repeating.iter_batches(LIST_ROWS, row_groups=[group], columns=[path], use_threads=False):
        array = batch.column(0)
        while not pa.types.is_dictionary(array.type):
            array = array.field(0) if pa.types.is_struct(array.type) else array.values
        if len(array.dictionary):
            return int(pc.max(pc.binary_length(array.dictionary)).as_py() or 0)
    return 0


def _chunks(table: pq.ParquetFile, group: int, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The path of each leaf of the columns, and what the footer says of its chunk."""
    found = table.metadata.row_group(group)
    for number in range(found.num_columns):
        chunk = found.column(number)
        if chunk.path_in_schema.split(".")[0] in columns:
            yield chunk.path_in_schema, chunk


def _batches(table: pq.ParquetFile, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    return table.iter_batches(max(1, rows), row_groups=[group], columns=list(columns), use_threads=False)


def _made(batches: Iterator[pa.RecordBatch], most: int | None) -> Iterator[Row]:
    """The rows of the batches; where there is a `most`, they are measured first."""
    for batch in batches:
        names = batch.schema.names
        sizes = [0] * len(batch) if most is None else np.sum([_sizes(column) for column in batch.columns], 0).tolist()
        for size, *row in zip(sizes, *batch.columns, strict=True):
            if most is not None and size > most:
                yield TooLarge(size)
                continue
            try:
                yield {name: value.as_py() for name, value in zip(names, row, strict=True)}
            except (ValueError, OverflowError) as error:  # not UTF-8; a day that no calendar has
                yield error


def _sizes(array: pa.Array) -> Ints:
    """About the bytes that each value takes as an object of Python."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _sizes(array.storage)
    if pa.types.is_dictionary(kind):
        entries = np.append(_sizes(array.dictionary), OBJECT_BYTES)
        return entries[array.indices.fill_null(len(array.dictionary)).to_numpy(zero_copy_only=False)]
    if pa.types.is_struct(kind):
        fields = (_sizes(array.field(number)) for number in range(kind.num_fields))
        return sum(fields, np.full(len(array), OBJECT_BYTES))
    if pa.types.is_fixed_size_list(kind):
        return _sums(array.values, (array.offset + np.arange(len(array) + 1)) * kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return _sums(array.values, array.offsets.to_numpy())
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        array, kind = array.cast(pa.large_binary()), pa.large_binary()
    if any(is_kind(kind) for is_kind in _TEXTS):
        return OBJECT_BYTES + pc.binary_length(array).fill_null(0).to_numpy().astype(np.int64)
    return np.full(len(array), OBJECT_BYTES)


def _sums(values: pa.Array, ends: Ints) -> Ints:
    """Of lists, which end in these places of their values."""
    return OBJECT_BYTES + np.diff(np.concatenate([[0], np.cumsum(_sizes(values))])[ends])


_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
