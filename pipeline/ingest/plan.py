"""From the files of the sources to pieces; only what is pinned by hash, or too large for a piece, is read for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.ingest.blocks import compression
from pipeline.ingest.formats import Survey, find_format, survey
from pipeline.ingest.pieces import Bounds, Outcome, Piece
from pipeline.sources import BadFileError, Fault, File
from pipeline.sources.pins import Check, check_pin

Run = Callable[[Callable[[Any], Any], Sequence[Any], str], list[Any]]
"""Calls a function on every job, and says what it is doing."""


@dataclass(frozen=True)
class Faulty:
    """A file that cannot be read."""

    file: File
    size: int = 0

    def read(self, bounds: Bounds) -> Iterator[Outcome]:
        """Say so."""
        assert self.file.fault
        raise BadFileError(self.file, *self.file.fault)


def plan(files: list[File], shard_bytes: int, bounds: Bounds, run: Run) -> list[Piece]:
    """The pieces of the files, in their order.

    Raises:
        ValueError: a format is unknown, or a file is not what it was pinned as.
    """
    formats = [None if file.fault else find_format(file) for file in files]
    run(check_pin, [Check(file.location, file.size, file.sha256) for file in files if file.sha256], "check the pins")
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
