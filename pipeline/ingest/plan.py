"""From the files of the sources to pieces.

What is here is read once for its hash: what was made of a file is found again by that, and a pin is held to it. Of
what lies elsewhere the store's tag does the same, where it keeps one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from pipeline.ingest.blocks import compression
from pipeline.ingest.formats import Survey, find_format, survey
from pipeline.ingest.pieces import Bounds, Outcome, Piece
from pipeline.sources import BadFileError, Fault, File
from pipeline.sources.pins import with_content

Run = Callable[[Callable[[Any], Any], Sequence[Any], str], list[Any]]
"""Calls a function on every job, and says what it is doing."""


@dataclass(frozen=True)
class Faulty:
    """A file that cannot be read."""

    file: File
    size: int = 0

    @property
    def name(self) -> str:
        """That of its file."""
        return self.file.name

    def read(self, bounds: Bounds) -> Iterator[Outcome]:
        """Say so."""
        assert self.file.fault
        raise BadFileError(self.file, *self.file.fault)


def plan(files: list[File], shard_bytes: int, bounds: Bounds, run: Run) -> list[Piece]:
    """The pieces of the files, in their order.

    Raises:
        ValueError: a format is unknown, or a file is not what it was pinned as.
    """
    with ThreadPoolExecutor() as threads:
        files = list(threads.map(with_content, files))
    formats = [None if file.fault else find_format(file) for file in files]
    surveys: dict[int, Sequence[Survey]] = {
        index: found.surveys(file, shard_bytes, bounds)
        for index, (file, found) in enumerate(zip(files, formats, strict=True))
        if found and file.size > shard_bytes and not compression(file.name)
    }
    results = iter(run(survey, [job for jobs in surveys.values() for job in jobs], "survey"))
    pieces: list[Piece] = []
    for index, (file, found) in enumerate(zip(files, formats, strict=True)):
        told = [next(results) for _ in surveys.get(index, ())]
        fault = next((each for each in told if isinstance(each, Fault)), file.fault)
        if fault or found is None:
            pieces.append(Faulty(replace(file, fault=fault)))
        elif told:
            pieces += found.cut(file, shard_bytes, bounds, [each for part in told for each in part])
        else:
            pieces.append(found.whole(file))
    return pieces
