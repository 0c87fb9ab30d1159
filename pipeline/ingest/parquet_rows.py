"""The rows of Parquet row groups, a few at a time, in memory that is bounded whatever the file says of itself.

Arrow makes all of a batch before one row is seen. In the file a text may be an entry of a dictionary that any number
of values repeat, and in a column of lists one row may have all values of its row group. So there the headers of the
pages are read first: where a row group may come to more than memory is meant for, its texts stay in their dictionaries
until each row is measured, or it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ingest.parquet_chunks import find_way, read_chunk
from pipeline.ingest.parquet_pages import HEADER_BUFFER
from pipeline.ingest.parquet_sizes import python_sizes
from pipeline.sources import BadFileError, File

BATCH_BYTES = 1 << 29
"""Of a batch, however its rows come out of a dictionary; or one row."""
FLAT_ROWS = 8
"""Of a batch, at most, of columns without lists."""


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
                arrow_extensions_enabled=False,  # JSON then is text, and may stay in dictionaries
            )
            if not table.metadata.num_rows:
                raise BadFileError(file, "empty", "is empty: fill it or take it away")
            yield table
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise BadFileError(file, "damaged", f"is not readable as Parquet ({error}): bring it whole") from None


def read_rows(
    file: File, table: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str], most: int, expanded: float
) -> Iterator[Row]:
    """The rows of the row groups, one at a time, so that Python holds one.

    Args:
        table: `file`, opened.
        most: the bytes of a row that may be made, if more than BATCH_BYTES.
        expanded: the bytes that the file may come to, in all.

    Raises:
        BadFileError: a row group has lists that memory is not meant for.
    """
    most = max(most, BATCH_BYTES)
    schema = [table.schema.column(number) for number in range(len(table.schema))]
    leaves = {number: leaf for number, leaf in enumerate(schema) if leaf.path.split(".")[0] in columns}
    lists = [leaf for leaf in leaves.values() if leaf.max_repetition_level]
    if not lists:
        for group in groups:
            found = table.metadata.row_group(group)
            longest = sum(found.column(number).total_uncompressed_size for number in leaves)
            rows = BATCH_BYTES // max(1, longest)
            yield from _made(_batches(table, group, columns, min(FLAT_ROWS, rows)), None)
        return
    texts = [leaf.path for leaf in lists if leaf.physical_type == "BYTE_ARRAY"]
    with file.open(HEADER_BUFFER) as headers, open_parquet(file, texts, table.metadata) as repeating:
        for group in groups:
            found = table.metadata.row_group(group)
            chunks = [read_chunk(headers, leaf, found.column(number)) for number, leaf in leaves.items()]
            way = find_way(file, repeating, group, chunks, expanded, BATCH_BYTES)
            reader = repeating if way.in_dictionaries else table
            yield from _made(_batches(reader, group, columns, way.rows), most)


def _batches(table: pq.ParquetFile, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    return table.iter_batches(max(1, rows), row_groups=[group], columns=list(columns), use_threads=False)


def _made(batches: Iterator[pa.RecordBatch], most: int | None) -> Iterator[Row]:
    """The rows of the batches; where there is a `most`, they are measured first."""
    for batch in batches:
        names = batch.schema.names
        sizes = (
            [0] * len(batch) if most is None else np.sum([python_sizes(column) for column in batch.columns], 0).tolist()
        )
        for size, *row in zip(sizes, *batch.columns, strict=True):
            if most is not None and size > most:
                yield TooLarge(size)
                continue
            try:
                yield {name: value.as_py() for name, value in zip(names, row, strict=True)}
            except (ValueError, OverflowError) as error:  # not UTF-8; a day that no calendar has
                yield error
