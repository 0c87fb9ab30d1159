"""The formats of a user's own files, by the extension of their names, and how each is cut into pieces.

A file no larger than a shard is one piece, and so is a compressed one of any size: it can only be read as a stream.
A larger one is surveyed first, by all workers, a part at a time: what they count tells where its pieces begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Protocol

from pipeline.ingest.blocks import COMPRESSIONS, compression
from pipeline.ingest.lines import count_newlines, count_ranges, cut_lines
from pipeline.ingest.pieces import Bounds, Piece
from pipeline.ingest.text import JsonLines, Text
from pipeline.sources import BadFileError, Fault, File

SURVEY_BYTES = 1 << 26
"""How much of a file one job of a survey counts lines in."""


class Survey(Protocol):
    """A job: look at a part of a file."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> None: ...
    def look(self) -> list[Any]: ...


class Format(Protocol):
    """How a file is cut."""

    def whole(self, file: File) -> Piece:
        """The file as one piece."""
        ...

    def surveys(self, file: File, shard_bytes: int, bounds: Bounds) -> Sequence[Survey]:
        """What has to be known of a large file before it is cut."""
        ...

    def cut(self, file: File, shard_bytes: int, bounds: Bounds, found: list[Any]) -> Iterator[Piece]:
        """The pieces of a large file, each of about a shard; `found` is what its surveys came to, one after another."""
        ...


@dataclass(frozen=True)
class CountLines:
    """Count the newlines in each of some byte ranges."""

    file: File
    ranges: list[tuple[int, int]]
    folder: None = None

    @property
    def name(self) -> str:
        """The range, as an error names it."""
        return f"{self.file.name} from byte {self.ranges[0][0]}"

    def look(self) -> list[int]:
        """One number for each range."""
        return [count_newlines(self.file, start, end) for start, end in self.ranges]


@dataclass(frozen=True)
class ReadFooter:
    """Read what a Parquet file says of its row groups."""

    file: File
    folder: None = None

    @property
    def name(self) -> str:
        """The file, as an error names it."""
        return self.file.name

    def look(self) -> list[tuple[int, int]]:
        """Rows and bytes of each row group."""
        from pipeline.ingest.parquet import row_groups  # Arrow takes a while, which other files do without

        return row_groups(self.file)


@dataclass(frozen=True)
class LinesFormat:
    """Files of lines."""

    piece: type[JsonLines] | type[Text]

    def whole(self, file: File) -> Piece:
        """The file as one piece."""
        return self.piece(file, 0, None, 1)

    def surveys(self, file: File, shard_bytes: int, bounds: Bounds) -> Sequence[Survey]:
        """Counts of lines."""
        step = self._step(shard_bytes, bounds)
        ranges = count_ranges(file, step)
        many = max(1, SURVEY_BYTES // step)
        return [CountLines(file, ranges[first : first + many]) for first in range(0, len(ranges), many)]

    def cut(self, file: File, shard_bytes: int, bounds: Bounds, found: list[int]) -> Iterator[Piece]:
        """Ranges of bytes."""
        for part in cut_lines(file, self._step(shard_bytes, bounds), found):
            yield self.piece(part.file, part.start, part.end, part.number)

    def _step(self, shard_bytes: int, bounds: Bounds) -> int:
        if self.piece is Text:  # where a document may end
            return max(1, shard_bytes // bounds.record_bytes) * bounds.record_bytes
        return shard_bytes


@dataclass(frozen=True)
class ParquetFormat:
    """Files of row groups."""

    def whole(self, file: File) -> Piece:
        """The file as one piece."""
        from pipeline.ingest.parquet import ParquetRows

        return ParquetRows(file, file.size)

    def surveys(self, file: File, shard_bytes: int, bounds: Bounds) -> Sequence[Survey]:
        """Its footer."""
        return [ReadFooter(file)]

    def cut(self, file: File, shard_bytes: int, bounds: Bounds, found: list[tuple[int, int]]) -> Iterator[Piece]:
        """Runs of row groups; a large one is read as a stream."""
        from pipeline.ingest.parquet import cut_groups

        yield from cut_groups(file, shard_bytes, found)


JSON_LINES, PLAIN_TEXT = LinesFormat(JsonLines), LinesFormat(Text)
TEXT = [".txt", ".text", ".md", ".rst", ".tex", ".html"]
CODE = [".py", ".js", ".ts", ".java", ".c", ".h", ".cpp", ".go", ".rs", ".sh", ".sql"]
FORMATS: dict[str, Format] = {
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".parquet": ParquetFormat(),
    **dict.fromkeys(TEXT + CODE, PLAIN_TEXT),
}


def find_format(file: File) -> Format:
    """The format of a file, by the extension of its name less that of its compression.

    Raises:
        ValueError: it is unknown.
    """
    name = file.name.lower().removesuffix(compression(file.name))
    suffix = PurePath(name).suffix
    found = FORMATS.get(suffix)
    if found is None or (compression(file.name) and not isinstance(found, LinesFormat)):
        raise ValueError(
            f"{file.location}: unknown format {PurePath(file.name).suffix!r}; known are {', '.join(FORMATS)}, "
            f"and with {', '.join(COMPRESSIONS)} after it all but .parquet"
        )
    return found


def survey(job: Survey) -> list[Any] | Fault:
    """What a survey finds, or why it finds nothing."""
    try:
        return job.look()
    except BadFileError as error:
        return Fault(error.reason, error.message)
