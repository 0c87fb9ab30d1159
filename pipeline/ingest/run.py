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
from pipeline.shards import Executor, Kept, run_shards, write_manifest
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
from pipeline.work import WorkFolder, link_or_copy, publish_directory

if TYPE_CHECKING:
    from pipeline.params import IngestParams

RECIPE = Path("embedded/corpus.yaml")
LOCK = Path("requirements.lock")


@dataclass(frozen=True)
class ShardJob:
    """Read `pieces`, write a file for each kind of record in them into `folder`."""

    name: str
    pieces: list[Piece]
    folder: Path


class ShardReport(NamedTuple):
    """What a shard came to: records and characters per kind, what was left out by reason."""

    records: Counter[str]
    characters: Counter[str]
    left_out: Counter[str]


def ingest(work: WorkFolder, params: IngestParams, *, executor: Executor) -> dict[str, float]:
    """Read the source into shards; `work.out`, which appears only when all of it is read, is described in
    data/README.md.

    Args:
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
    jobs = [
        ShardJob(str(index), shard, work.scratch / "shards" / str(index))
        for index, shard in enumerate(pack(pieces, shard_bytes))
    ]
    reports = run_shards(write_shard, jobs, title="ingest", executor=executor, kept=Kept.of(work))
    facts = _facts(reports)
    if not any(facts["records"].values()):
        raise ValueError(f"ingest.source: {params.source} holds no records")
    with publish_directory(work.out) as building:
        counts = {}
        for index, (job, report) in enumerate(zip(jobs, reports, strict=True)):
            for kind, count in report.records.items():
                counts[shard_file(kind, index)] = count
                link_or_copy(job.folder / f"{kind}.parquet", building / shard_file(kind, index))
        write_manifest(building, counts, facts)
    return {
        **{kind: float(facts["records"][kind]) for kind in KINDS},
        "characters": float(sum(facts["characters"].values())),
        "left_out": float(sum(facts["left_out"].values())),
    }


def write_shard(job: ShardJob) -> ShardReport:
    """Read the pieces of a shard and write a file for each kind of record in them."""
    readings = [piece.read() for piece in job.pieces]
    report = ShardReport(Counter(), Counter(), sum((reading.left_out for reading in readings), Counter()))
    for kind in KINDS:
        table = _table(kind, [record for reading in readings for record in reading.records])
        if table.height:
            write_table(table, job.folder / f"{kind}.parquet")
            report.records[kind] = table.height
            report.characters[kind] = table.select(characters(kind).sum()).item()
    return report


def _table(kind: str, records: list[Record]) -> pl.DataFrame:
    wanted = str if kind == DOCUMENTS else list
    rows = [record for record in records if isinstance(record.content, wanted)]
    return pl.DataFrame(rows, schema=columns(kind, split=True), orient="row")


def _facts(reports: list[ShardReport]) -> dict[str, Any]:
    records = sum((report.records for report in reports), Counter[str]())
    left_out = sum((report.left_out for report in reports), Counter[str]())
    text = sum((report.characters for report in reports), Counter[str]())
    return {
        "records": {kind: records[kind] for kind in KINDS},
        "characters": {kind: text[kind] for kind in KINDS},
        "left_out": dict(sorted(left_out.items())),
        "schema": {kind: describe(columns(kind, split=True)) for kind in (DOCUMENTS, CONVERSATIONS)},
    }
