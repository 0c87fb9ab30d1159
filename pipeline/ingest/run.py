"""Turn sources into shards of documents and conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.ingest.embedded import embedded_pieces
from pipeline.ingest.formats import FORMATS
from pipeline.ingest.pieces import Bounds, Piece, pack
from pipeline.ingest.plan import plan
from pipeline.ingest.shard import QUARANTINE, ShardJob, ShardReport, write_shards
from pipeline.params import EMBEDDED, IngestParams
from pipeline.shards import Executor, Kept, run_shards, write_manifest
from pipeline.shards.tables import KINDS, columns, describe, join_tables, shard_file
from pipeline.sources import find_files, read_weights
from pipeline.sources.pins import changed_pins
from pipeline.work import WorkFolder, link_or_copy, publish_directory

RECIPE = Path("embedded/corpus.yaml")
LOCK = Path("requirements.lock")
QUARANTINE_FILE = f"{QUARANTINE}.parquet"


def ingest(work: WorkFolder, params: IngestParams, *, executor: Executor) -> dict[str, float]:
    """Read the sources into `work.out`, which appears only when all of it is read; data/README.md describes it.

    Args:
        params: the section `ingest` of params.yaml.
        executor: where to run. The bytes do not depend on it.

    Returns:
        The totals, for the metrics.

    Raises:
        ValueError: a source is missing, empty or malformed, or all of it is in quarantine.
    """
    shard_bytes = max(1, int(params.shard_mb * 1e6))
    bounds = Bounds(max(1, int(params.max_record_mb * 1e6)), params.max_expansion)
    quarantine = params.bad_records.value == "quarantine"

    kept = Kept.of(work)

    def run(function: Callable[[Any], Any], jobs: Sequence[Any], title: str) -> list[Any]:
        return run_shards(function, jobs, title=f"ingest: {title}", executor=executor, kept=kept) if jobs else []

    pieces = _pieces(params.source, shard_bytes, bounds, run, work, executor)
    jobs = [
        ShardJob(part, bounds, shard_bytes, quarantine, work.scratch / "shards" / f"{index:05d}", str(index))
        for index, part in enumerate(pack(pieces, shard_bytes))
    ]
    reports = run(write_shards, jobs, "read")
    facts = _facts(reports) | {"weights": {} if params.source == EMBEDDED else read_weights(Path(params.source))}
    if not any(facts["records"].values()):
        put_aside = f"; {facts['records_in']} are in quarantine: {facts['quarantined']}" if facts["quarantined"] else ""
        raise ValueError(f"ingest.source: {params.source} holds no records{put_aside}")
    with publish_directory(work.out) as building:
        write_manifest(building, _assemble(jobs, reports, building), facts)
    return {
        **{kind: float(facts["records"][kind]) for kind in KINDS},
        "characters": float(sum(facts["characters"].values())),
        "left_out": float(sum(facts["left_out"].values())),
        "quarantined": float(sum(facts["quarantined"].values())),
    }


def _pieces(
    source: str,
    shard_bytes: int,
    bounds: Bounds,
    run: Callable[..., list[Any]],
    work: WorkFolder,
    executor: Executor,
) -> list[Piece]:
    if source == EMBEDDED:
        return embedded_pieces(RECIPE, LOCK)
    if files := find_files(Path(source)):
        work.watch(lambda: changed_pins(files))  # DVC does not see them
        executor.start(sum(file.size for file in files) // shard_bytes, write_shards.__module__)
        return plan(files, shard_bytes, bounds, run)
    raise ValueError(f"ingest.source: {source}/ holds no data; put files in it ({', '.join(FORMATS)})")


def _assemble(jobs: list[ShardJob], reports: list[ShardReport], out: Path) -> dict[str, int]:
    """Put the shards of all jobs into `out`, numbered through, and the bad records into one table: rows by file."""
    rows: dict[str, int] = {}
    put_aside: list[Path] = []
    number = 0
    for job, report in zip(jobs, reports, strict=True):
        for index, tables in enumerate(report.shards):
            for name, count in tables.items():
                part = job.folder / shard_file(name, index)
                if name == QUARANTINE:
                    put_aside.append(part)
                    rows[QUARANTINE_FILE] = rows.get(QUARANTINE_FILE, 0) + count
                else:
                    rows[shard_file(name, number)] = count
                    link_or_copy(part, out / shard_file(name, number))
            number += bool(tables.keys() & KINDS)
    if put_aside:
        join_tables(put_aside, out / QUARANTINE_FILE)
    return rows


def _facts(reports: list[ShardReport]) -> dict[str, Any]:
    rows = sum((Counter(tables) for report in reports for tables in report.shards), Counter[str]())
    text = sum((report.characters for report in reports), Counter[str]())
    records_in = sum(report.records_in for report in reports)
    quarantined = _sum(report.quarantined for report in reports)
    assert records_in == sum(rows.values()), "a record is written or put into quarantine, once"
    assert rows[QUARANTINE] == sum(quarantined.values()), "what is in quarantine is counted by reason"
    return {
        "records_in": records_in,
        "records": {kind: rows[kind] for kind in KINDS},
        "sources": _sum(report.sources for report in reports),
        "quarantined": quarantined,
        "characters": {kind: text[kind] for kind in KINDS},
        "left_out": _sum(report.left_out for report in reports),
        "schema": {kind: describe(columns(kind, split=True)) for kind in KINDS},
    }


def _sum(counters: Iterable[Counter[str]]) -> dict[str, int]:
    return dict(sorted(sum(counters, Counter[str]()).items()))
