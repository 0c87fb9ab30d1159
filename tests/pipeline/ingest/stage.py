"""Ingest as a function: of files, in a work folder of its own."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.ingest import run
from pipeline.params import BadRecords, IngestParams
from pipeline.shards import Local
from pipeline.shards.tables import columns
from pipeline.work import WorkFolder


def params(source: Path, shard_mb: float = 4, **others: Any) -> IngestParams:
    """The section `ingest`: records of up to 1 MB, and the first bad one is an error."""
    settings = {"max_record_mb": 1, "max_expansion": 200, "bad_records": BadRecords.stop}
    return IngestParams(source=str(source), shard_mb=shard_mb, **settings | others)


def quarantining(source: Path, shard_mb: float = 4, **others: Any) -> IngestParams:
    """Likewise, but bad records are put aside."""
    return params(source, shard_mb, bad_records=BadRecords.quarantine, **others)


def ingest(out: Path, settings: IngestParams, *, workers: int = 1) -> dict[str, float]:
    """Run the stage in a work folder beside `out`, and publish."""
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        work = WorkFolder(Path(folder))
        summary = run.ingest(work, settings, executor=Local(workers))
        work.publish(out)
    return summary


def write_jsonl(path: Path, records: list[Any]) -> Path:
    """Write a record a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def rows(directory: Path, kind: str) -> list[tuple[Any, ...]]:
    """All records of a kind, in order."""
    files = sorted(directory.glob(f"{kind}-*.parquet"))
    assert all(pl.read_parquet_schema(file) == columns(kind, split=True) for file in files)
    return [row for file in files for row in pl.read_parquet(file).iter_rows()]


def texts(directory: Path) -> list[str]:
    """The text of all documents, in order."""
    return [row[4] for row in rows(directory, "documents")]


def quarantine(directory: Path) -> list[dict[str, Any]]:
    """What was put aside."""
    file = directory / "quarantine.parquet"
    return pl.read_parquet(file).to_dicts() if file.exists() else []


def manifest(directory: Path) -> dict[str, Any]:
    """The manifest, after a look at the law of conservation: what was read was written or put aside, once."""
    found: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    written = [*rows(directory, "documents"), *rows(directory, "conversations")]
    put_aside = quarantine(directory)
    assert found["records_in"] == len(written) + len(put_aside)
    assert sum(found["records"].values()) == sum(found["sources"].values()) == len(written)
    reasons = [row["reason"] for row in put_aside]
    assert found["quarantined"] == {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    ids = [row[0] for row in written]
    assert len(set(ids)) == len(ids)
    return found
