"""Each record on its way: found, dropped for a reason, or packed."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from pipeline.evaluate.report.funnel import Funnel, read_funnel
from pipeline.hashing import MANIFEST


def packed(records_in: int, **dropped: int) -> dict:
    out = records_in - sum(dropped.values())
    counts = {"truncated": 1, "rows": 2, "tokens": 9, "supervised_tokens": 5, "efficiency": 0.9}
    return {"records_in": records_in, "records_out": out, "dropped": dropped, **counts}


def write(directory: Path, manifest: dict) -> Path:
    directory.mkdir()
    (directory / MANIFEST).write_text(json.dumps({"files": {}} | manifest))
    return directory


def read(tmp_path: Path) -> Funnel:
    ingested = write(
        tmp_path / "ingested",
        {
            "records": {"documents": 10, "conversations": 30},
            "left_out": {"no_body": 4},
            "quarantined": {"not_json": 2},
        },
    )
    clean = write(tmp_path / "clean", {"repeated": {"documents": 3, "conversations": 0}})
    dropped = [("documents", "too_short")] * 2 + [("conversations", "duplicate")] * 5
    pl.DataFrame(dropped, schema=["kind", "reason"], orient="row").write_parquet(clean / "dropped.parquet")
    tokens = write(
        tmp_path / "tokens",
        {
            "documents": {"train": packed(11)},
            "conversations": {"train": packed(20, too_long=3), "test": packed(5, too_long=1)},
        },
    )
    return read_funnel(ingested, clean, tokens)


def test_what_is_dropped_adds_up(tmp_path):
    funnel = read(tmp_path)
    documents, conversations = funnel.flows
    assert (documents.found, documents.cleaned, documents.packed) == (10, 11, 11)
    assert (conversations.found, conversations.cleaned, conversations.packed) == (30, 25, 21)
    for flow in funnel.flows:
        assert flow.packed == sum(split.records_out for split in funnel.splits if split.kind == flow.kind)
    assert [(split.kind, split.split) for split in funnel.splits] == [
        ("documents", "train"),
        ("conversations", "train"),
        ("conversations", "test"),
    ]


def test_the_steps_name_each_reason_once_and_in_order(tmp_path):
    steps = [(step.stage, step.outcome, step.records) for step in read(tmp_path).steps()]
    assert steps == [
        ("ingest", "left out: no body", {"": 4}),
        ("ingest", "left out: in quarantine: not json", {"": 2}),
        ("ingest", "handed on", {"documents": 10, "conversations": 30}),
        ("preprocess", "dropped: duplicate", {"documents": 0, "conversations": 5}),
        ("preprocess", "dropped: too short", {"documents": 2, "conversations": 0}),
        ("preprocess", "repeated", {"documents": 3, "conversations": 0}),
        ("preprocess", "handed on", {"documents": 11, "conversations": 25}),
        ("tokenize", "dropped: too long", {"documents": 0, "conversations": 4}),
        ("tokenize", "packed into rows", {"documents": 11, "conversations": 21}),
    ]
