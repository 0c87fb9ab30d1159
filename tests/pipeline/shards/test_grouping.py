"""Many small files become few shards, and each stage works on as few: no job, no output file for each of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl

from tests.pipeline.shards.jobs import Counting
from tests.pipeline.shards.stages import run_stages

FILES = 3000
SHARD_BYTES = 10_000
"""As `run_stages` has it."""


def write_files(folder: Path) -> dict[str, str]:
    """One record in each: the text of each by the id that it gets."""
    folder.mkdir(parents=True)
    texts: dict[str, str] = {}
    for number in range(FILES):
        text = f"File number {number} says {number * 7919 % FILES} and ends."
        name = f"{number:04d}.{('txt', 'jsonl', 'jsonl.gz')[number % 3]}"
        line = text if name.endswith(".txt") else json.dumps({"text": text})
        (folder / name).write_bytes(gzip.compress(line.encode()) if name.endswith(".gz") else line.encode())
        texts[f"{name}:1"] = text
    return texts


def test_three_thousand_files_are_few_shards_with_every_record(tmp_path: Path) -> None:
    texts = write_files(tmp_path / "input")
    counting = Counting()
    made = run_stages(tmp_path, counting)
    shards = sum(file.stat().st_size for file in (tmp_path / "input").iterdir()) / SHARD_BYTES
    few = 4 * shards  # a job of ingest ends after half a shard on average
    assert few < FILES / 40
    assert counting.ran["ingest.write_shards"] <= few
    assert max(counting.ran.values()) <= few
    assert len(made) < 6 * few  # a shard may have a file in each of three splits
    out = {stage: tmp_path / "work" / stage / "done/out" for stage in ("ingest", "preprocess", "tokenize")}
    records = pl.read_parquet(out["ingest"] / "documents-*.parquet")
    assert dict(records.select("id", "text").iter_rows()) == texts
    assert dict(pl.read_parquet(out["preprocess"] / "*/documents-*.parquet").select("id", "text").iter_rows()) == texts
    splits = json.loads((out["tokenize"] / "manifest.json").read_text())["documents"]
    assert sum(figures["records_out"] for figures in splits.values()) == FILES
