"""Turn a source into shards of documents and conversations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from pipeline.ingest.embedded import embedded_pieces
from pipeline.ingest.files import file_pieces
from pipeline.ingest.pieces import Piece, Record, pack
from pipeline.shards import Executor, run_shards, write_manifest
from pipeline.shards.tables import (
    CONVERSATIONS,
    DOCUMENTS,
    KINDS,
    characters,
    columns,
    describe,
    shard_file,
    write_table,
)
from pipeline.work import publish_directory

if TYPE_CHECKING:
    from pipeline.params import IngestParams

RECIPE = Path("embedded/corpus.yaml")
LOCK = Path("requirements.lock")


@dataclass(frozen=True)
class ShardJob:
    """Shard `index`: read `pieces`, write into `directory`, which all jobs share."""

    index: int
    pieces: list[Piece]
    directory: Path
    folder: None = None

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        return str(self.index)


class ShardReport(NamedTuple):
    """What a shard came to: records per file, characters per kind, what was left out by reason."""

    files: dict[str, int]
    characters: Counter[str]
    left_out: Counter[str]


def ingest(out: Path, params: IngestParams, *, executor: Executor) -> dict[str, float]:
    """Read the source into `out`, which appears only when all of it is read.

    Args:
        out: the directory that the shards and their manifest make up, see data/README.md.
        params: the section `ingest` of params.yaml.
        executor: where to run. The bytes do not depend on it.

    Returns:
        The totals, for the metrics.

    Raises:
        ValueError: the source is missing, empty or malformed.
    """
    shard_bytes = max(1, int(params.shard_mb * 1e6))
    if params.source == "embedded":
        pieces = embedded_pieces(RECIPE, LOCK)
    else:
        pieces = file_pieces(Path(params.source), shard_bytes)
    with publish_directory(out) as building:
        jobs = [ShardJob(index, shard, building) for index, shard in enumerate(pack(pieces, shard_bytes))]
        reports = run_shards(write_shard, jobs, title="ingest", executor=executor)
        facts = _facts(reports)
        if not any(facts["records"].values()):
            raise ValueError(f"ingest.source: {params.source} holds no records")
        write_manifest(building, {name: count for report in reports for name, count in report.files.items()}, facts)
    return {
        **{kind: float(facts["records"][kind]) for kind in KINDS},
        "characters": float(sum(facts["characters"].values())),
        "left_out": float(sum(facts["left_out"].values())),
    }


def write_shard(job: ShardJob) -> ShardReport:
    """Read the pieces of a shard and write a file for each kind of record in them."""
    readings = [piece.read() for piece in job.pieces]
    report = ShardReport({}, Counter(), sum((reading.left_out for reading in readings), Counter()))
    for kind in KINDS:
        table = _table(kind, [record for reading in readings for record in reading.records])
        if table.height:
            file = shard_file(kind, job.index)
            write_table(table, job.directory / file)
            report.files[file] = table.height
            report.characters[kind] = table.select(characters(kind).sum()).item()
    return report


def _table(kind: str, records: list[Record]) -> pl.DataFrame:
    wanted = str if kind == DOCUMENTS else list
    rows = [record for record in records if isinstance(record.content, wanted)]
    return pl.DataFrame(rows, schema=columns(kind, split=True), orient="row")


def _facts(reports: list[ShardReport]) -> dict[str, Any]:
    records: Counter[str] = Counter()
    for report in reports:
        for file, count in report.files.items():
            records[file.partition("-")[0]] += count
    left_out = sum((report.left_out for report in reports), Counter[str]())
    text = sum((report.characters for report in reports), Counter[str]())
    return {
        "records": {kind: records[kind] for kind in KINDS},
        "characters": {kind: text[kind] for kind in KINDS},
        "left_out": dict(sorted(left_out.items())),
        "schema": {kind: describe(columns(kind, split=True)) for kind in (DOCUMENTS, CONVERSATIONS)},
    }
