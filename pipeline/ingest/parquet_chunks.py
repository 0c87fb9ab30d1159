"""How a Parquet row group that has lists is to be read, by the headers of its pages.

One row of a list may have all values of its row group, so what Arrow needs to make them all is held to a limit. Three
things count: the levels of the values; what an encoding lets a value repeat of another; a page, which Arrow holds
whole. A row group may be larger than the limit, and a row that lies in many pages takes what they hold before it is
measured: no header tells it from an honest large row group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.ingest.parquet_pages import DELTA_BYTE_ARRAY, DICTIONARY_ENCODINGS, read_pages
from pipeline.sources import BadFileError, File

LEVEL_BYTES = 24
"""Of a value in a list, beside its bytes: its levels, its place in a dictionary, and to measure it."""
USUAL_BYTES = 1 << 24
"""Of the rows read at a time, if they have as many values as the mean row and these the mean length of any page."""
MOST_ROWS = 1024
"""Read at a time."""

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_FIRST_ROWS = 8


class Chunk(NamedTuple):
    """A column chunk, by the headers of its pages; sizes in bytes, decompressed."""

    path: str
    in_lists: bool
    width: int | None
    """Of a value; None: of texts, any."""
    values: int
    """Nulls and empty lists count."""
    repeated: int
    """Of the values, those that are entries of the dictionary."""
    in_order: bool
    """They come before all others: then the first that are read are of the dictionary."""
    dictionary: int
    """Its size."""
    largest: int
    """Of the pages, the size."""
    mean: float
    """Of the mean sizes of a value in a page, the largest; those that are entries aside."""
    delta: int
    """What comes of a page of DELTA_BYTE_ARRAY at most: each of its values is as long as the page."""

    @property
    def entry(self) -> int:
        """The size of an entry of the dictionary, at most."""
        return self.dictionary if self.width is None else self.width


class Way(NamedTuple):
    """How to read a row group."""

    in_dictionaries: bool
    """Leave the texts there until the rows are measured."""
    rows: int
    """At a time."""


def read_chunk(stream: BinaryIO, leaf: Any, chunk: Any) -> Chunk:
    """Sum up the pages of a column chunk.

    Args:
        leaf: pyarrow's ColumnSchema.
        chunk: its ColumnChunkMetaData.

    Raises:
        OSError: a header is malformed.
    """
    values = repeated = dictionary = largest = delta = 0
    mean, in_order = 0.0, True
    for page in read_pages(stream, chunk):
        largest = max(largest, page.size)
        if page.is_dictionary:
            dictionary = max(dictionary, page.size)
            continue
        if page.encoding in DICTIONARY_ENCODINGS:
            in_order = in_order and repeated == values
            repeated += page.values
        elif page.encoding == DELTA_BYTE_ARRAY:
            delta = max(delta, page.values * page.size)
            mean = max(mean, page.size)
        else:
            mean = max(mean, page.size / max(1, page.values))
        values += page.values
    width = leaf.length if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS.get(leaf.physical_type)
    in_lists = leaf.max_repetition_level > 0
    return Chunk(leaf.path, in_lists, width, values, repeated, in_order, dictionary, largest, mean, delta)


def find_way(
    file: File, repeating: pq.ParquetFile, group: int, chunks: Sequence[Chunk], expanded: float, limit: int
) -> Way:
    """How to read a row group that has lists.

    Args:
        repeating: `file`, opened so that texts in lists are read as dictionaries.
        chunks: of the columns that are read.
        expanded: the bytes that the file may come to, in all.
        limit: in bytes, of what one row may take.

    Raises:
        BadFileError: one row may take more.
    """
    lists = [chunk for chunk in chunks if chunk.in_lists]
    where = f"has a row group, number {group + 1}, of which one"
    for chunk in lists:
        if chunk.largest > limit:
            found = f"page of {chunk.path} takes {chunk.largest:,} bytes: write it with smaller pages"
            raise BadFileError(file, "bomb", f"{where} {found}")
        if chunk.delta > max(limit, expanded):
            found = f"page of {chunk.path} may come to {chunk.delta:,} bytes: write it not as DELTA_BYTE_ARRAY"
            raise BadFileError(file, "bomb", f"{where} {found}")
    made = sum(chunk.values * (LEVEL_BYTES + (chunk.width or 0)) for chunk in lists)
    _check(file, where, made, limit)
    texts = [chunk for chunk in lists if chunk.width is None and chunk.repeated]
    longest = {chunk.path: chunk.entry for chunk in lists}
    if sum(chunk.repeated * chunk.entry for chunk in texts) > limit:
        measured = {chunk: _longest(repeating, group, chunk) for chunk in texts}
        longest |= {chunk.path: size for chunk, size in measured.items() if size is not None}
        made += sum(chunk.repeated * chunk.entry for chunk, size in measured.items() if size is None)
        _check(file, where, made, limit)
    usual = sum(max(chunk.mean, longest[chunk.path] if chunk.repeated else 0) * chunk.values for chunk in lists)
    usual += sum(chunk.mean * chunk.values for chunk in chunks if not chunk.in_lists)
    flat = sum(chunk.largest if chunk.width is None else chunk.width for chunk in chunks if not chunk.in_lists)
    count = repeating.metadata.row_group(group).num_rows
    rows = int(max(1, min(MOST_ROWS, limit / max(1, flat), USUAL_BYTES * count / max(1, usual))))
    return Way(sum(chunk.repeated * longest[chunk.path] for chunk in texts) > limit, rows)


def _check(file: File, where: str, made: int, limit: int) -> None:
    if made > limit:
        found = f"row may take {made:,} bytes: write it with smaller row groups"
        raise BadFileError(file, "bomb", f"{where} {found}")


def _longest(repeating: pq.ParquetFile, group: int, chunk: Chunk) -> int | None:
    """The size of the longest entry of a dictionary of texts; None: Arrow does not leave them there (decimals)."""
    for batch in repeating.iter_batches(_FIRST_ROWS, row_groups=[group], columns=[chunk.path], use_threads=False):
        array = batch.column(0)
        while pa.types.is_nested(array.type):
            array = array.field(0) if pa.types.is_struct(array.type) else array.values
        if not pa.types.is_dictionary(array.type):
            return None
        if not chunk.in_order:
            return chunk.entry
        if len(array.dictionary):
            return int(pc.max(pc.binary_length(array.dictionary)).as_py() or 0)
    return chunk.entry
