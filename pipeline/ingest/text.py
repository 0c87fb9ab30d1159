"""The formats that are lines of text: one JSON object a line, or one document a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.ingest.lines import Range
from pipeline.ingest.parsing import bad_record, parse_json, too_large
from pipeline.ingest.pieces import BadRecord, Bounds, Outcome, Record
from pipeline.sources import BadFileError


@dataclass(frozen=True)
class JsonLines(Range):
    """A record in each line that is not blank."""

    def read(self, bounds: Bounds) -> Iterator[Outcome]:
        """Read it."""
        yield from _not_nothing(self, self._outcomes(bounds))

    def _outcomes(self, bounds: Bounds) -> Iterator[Outcome]:
        for line in self.lines(bounds):
            if line.size > bounds.record_bytes:
                yield too_large(self.file, line.number, line.size, bounds.record_bytes, line.data)
            elif data := line.data.strip():
                yield parse_json(self.file, line.number, data)


@dataclass(frozen=True)
class Text(Range):
    """A file as one document; one longer than a record may be is cut, at line ends, into several.

    Where it is cut depends on nothing but the file and `max_record_mb`: a document has the lines that start in the
    same multiple of it.
    """

    def read(self, bounds: Bounds) -> Iterator[Outcome]:
        """Read it."""
        yield from _not_nothing(self, self._outcomes(bounds))

    def _outcomes(self, bounds: Bounds) -> Iterator[Outcome]:
        data, start, first = bytearray(), 0, 0
        for line in self.lines(bounds):
            if line.size > bounds.record_bytes:
                yield too_large(self.file, line.number, line.size, bounds.record_bytes, line.data)
                continue
            if data and line.offset // bounds.record_bytes > start // bounds.record_bytes:
                yield self._document(first, bytes(data))
                data.clear()
            if not data:
                start, first = line.offset, line.number
            data += line.data
        if data:
            yield self._document(first, bytes(data))

    def _document(self, first: int, data: bytes) -> Record | BadRecord:
        """What the lines from number `first` on make."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            number = first + data.count(b"\n", 0, error.start)
            message = f"not UTF-8: {error.reason}; write the file as UTF-8"
            return bad_record(self.file, number, "not_utf8", message, data)
        record_id = f"{self.file.name}:{first}"
        return Record(record_id, self.file.source, record_id, self.file.split, text)


def _not_nothing(part: Range, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """The outcomes, of which a whole file has at least one; a part of a large one may have nothing but blank lines."""
    nothing = True
    for outcome in outcomes:
        nothing = False
        yield outcome
    if nothing and part.whole:
        raise BadFileError(part.file, "empty", "holds nothing: fill it or take it away")
