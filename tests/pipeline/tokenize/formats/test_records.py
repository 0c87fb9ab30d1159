"""Records as Parquet and JSONL, read back with other readers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.params import TOKEN_FORMATS
from pipeline.rows import Sequences
from pipeline.tokenize.formats import RECORD_FORMATS, ROW_FORMATS
from pipeline.tokenize.formats.jsonl import write_jsonl
from pipeline.tokenize.formats.parquet import write_parquet

PARTS = [
    Sequences(np.array([0, 7, 70_000], dtype=np.uint32), np.array([0, 1, 2], dtype=np.uint8), np.array([2, 1])),
    Sequences(np.array([5], dtype=np.uint32), np.array([0], dtype=np.uint8), np.array([1])),
]
BYTES = [np.array([9, 0]), np.array([2**40])]
RECORDS = [
    {"input_ids": [0, 7], "loss_mask": [0, 1], "text_bytes": 9},
    {"input_ids": [70_000], "loss_mask": [2], "text_bytes": 0},
    {"input_ids": [5], "loss_mask": [0], "text_bytes": 2**40},
]


def test_parquet(tmp_path: Path) -> None:
    with write_parquet(tmp_path, 70_001) as add:
        for part, text_bytes in zip(PARTS, BYTES, strict=True):
            add(part, text_bytes)
    table = pl.read_parquet(tmp_path / "tokens.parquet")
    assert table.to_dicts() == RECORDS
    assert table.schema == {"input_ids": pl.List(pl.Int32), "loss_mask": pl.List(pl.Int8), "text_bytes": pl.Int64}


def test_jsonl(tmp_path: Path) -> None:
    with write_jsonl(tmp_path, 70_001) as add:
        for part, text_bytes in zip(PARTS, BYTES, strict=True):
            add(part, text_bytes)
    lines = (tmp_path / "tokens.jsonl").read_bytes().decode().removesuffix("\n").split("\n")
    assert [json.loads(line) for line in lines] == RECORDS


def test_the_parameter_knows_the_formats() -> None:
    assert set(TOKEN_FORMATS) == {"rows"} | ROW_FORMATS.keys() | RECORD_FORMATS.keys()
    assert not ROW_FORMATS.keys() & RECORD_FORMATS.keys()
