"""A job of ingest: read some pieces, write what they hold as shards of its own folder."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from pipeline.ingest.parsing import bad_record
from pipeline.ingest.pieces import Bounds, LeftOut, Outcome, Piece, Record, record_bytes
from pipeline.shards.tables import CONVERSATIONS, DOCUMENTS, KINDS, characters, columns, shard_file, write_table
from pipeline.sources import BadFileError

QUARANTINE = "quarantine"
QUARANTINE_COLUMNS = pl.Schema(
    {
        "source": pl.String(),
        "file": pl.String(),
        "line": pl.Int64(),
        "reason": pl.String(),
        "message": pl.String(),
        "excerpt": pl.Binary(),
    }
)
TABLES = (*KINDS, QUARANTINE)

MOST_ROWS = 100_000
"""Of a table: a row without text, of which a small file may have millions, takes some 350 bytes while it is held."""


@dataclass(frozen=True)
class ShardJob:
    """Read `pieces`, write into `folder`."""

    pieces: list[Piece]
    bounds: Bounds
    shard_bytes: int
    quarantine: bool
    folder: Path
    name: str


@dataclass
class ShardReport:
    """What a job came to."""

    shards: list[dict[str, int]] = field(default_factory=list)
    """Of each shard that it wrote, the rows of each of its tables."""
    records_in: int = 0
    """What was read: good records and bad ones."""
    characters: Counter[str] = field(default_factory=Counter)
    """By kind."""
    sources: Counter[str] = field(default_factory=Counter)
    """Records by source."""
    quarantined: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    """Both by reason."""


def write_shards(job: ShardJob) -> ShardReport:
    """Read the pieces and write tables for each kind of record in them, a new shard when one is full.

    Raises:
        ValueError: a record or a file is bad, and is not to be put into quarantine.
    """
    writer = _Writer(job)
    for piece in job.pieces:
        try:
            for outcome in piece.read(job.bounds):
                writer.add(outcome)
        except BadFileError as error:
            writer.add(bad_record(error.file, None, error.reason, error.message))
    writer.close_shard()
    return writer.report


class _Writer:
    """Holds the rows of one shard; no table of it has more than MOST_ROWS, nor more than `shard_bytes` of text, but for
    a single record's.
    """

    def __init__(self, job: ShardJob) -> None:
        self.report = ShardReport()
        self._job = job
        self._start()

    def add(self, outcome: Outcome) -> None:
        """Take in what was read."""
        if isinstance(outcome, LeftOut):
            self.report.left_out[outcome.reason] += 1
            return
        self.report.records_in += 1
        if isinstance(outcome, Record):
            self.report.sources[outcome.source] += 1
            kind = DOCUMENTS if isinstance(outcome.content, str) else CONVERSATIONS
            self._append(kind, outcome, record_bytes(outcome))
            return
        if not self._job.quarantine:
            raise ValueError(f"{outcome.where}{' ' if outcome.line is None else ': '}{outcome.message}")
        self.report.quarantined[outcome.reason] += 1
        self._append(QUARANTINE, outcome[:-1], len(outcome.message) + len(outcome.excerpt))

    def close_shard(self) -> None:
        """Write the rows held, if any."""
        written = {}
        for name, rows in self._rows.items():
            if rows:
                schema = QUARANTINE_COLUMNS if name == QUARANTINE else columns(name, split=True)
                table = pl.DataFrame(rows, schema=schema, orient="row")
                write_table(table, self._job.folder / shard_file(name, len(self.report.shards)))
                written[name] = table.height
                if name in KINDS:
                    self.report.characters[name] += table.select(characters(name).sum()).item()
        if written:
            self.report.shards.append(written)
        self._start()

    def _append(self, name: str, row: Record | tuple[object, ...], size: int) -> None:
        rows = len(self._rows[name])
        if rows == MOST_ROWS or (rows and self._sizes[name] + size > self._job.shard_bytes):
            self.close_shard()
        self._rows[name].append(row)
        self._sizes[name] += size

    def _start(self) -> None:
        self._rows: dict[str, list[Record | tuple[object, ...]]] = {name: [] for name in TABLES}
        self._sizes: Counter[str] = Counter()
