"""Packed rows for Megatron-Bridge, read back as it reads them: by sequence, each predicting its next tokens.

Its own reader is not here to be asked: Megatron-Bridge (0.6.2) takes Python 3.12, Megatron-Core and CUDA's packages,
and what installs on Python 3.11 (0.3.1) knows no Parquet. `batch_of` does what its dataset does, on Polars' Parquet.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.rows import CONTEXT, NEVER, RESPONSE, open_rows
from pipeline.shards.tables import KINDS, SPLITS
from pipeline.tokenize.formats.bridge import write_bridge
from tests.packed import Sequence, packed
from tests.pipeline.tokenize.test_tokenize import PARAMS, random_clean, run


def random_rows(count: int) -> list[list[Sequence]]:
    """Rows whose first sequence has more than one token."""
    rng = np.random.default_rng(count)

    def sequence(length: int) -> Sequence:
        mask = rng.choice([RESPONSE, CONTEXT], length).astype(np.uint8)
        mask[0] = NEVER
        return rng.integers(0, 70_000, length).astype(np.uint32), mask

    return [
        [sequence(int(rng.integers(2, 9))), *(sequence(int(rng.integers(1, 9))) for _ in range(rng.integers(0, 4)))]
        for _ in range(count)
    ]


def write(directory: Path, rows: list[list[Sequence]], at_a_time: int) -> Path:
    directory.mkdir(exist_ok=True)
    with write_bridge(directory, 70_000) as add:
        for first in range(0, len(rows), at_a_time):
            add(*packed(rows[first : first + at_a_time]))
    return directory / "packed.idx.parquet"


def predictions(line: dict[str, list[int]]) -> list[tuple[list[int], list[int]]]:
    """By sequence: the tokens that are seen, and those that are learned from them (-1 where none is)."""
    ids, mask = line["input_ids"], line["loss_mask"]
    bounds = [*line["seq_start_id"], len(ids)]
    spans = [(start, stop - 1) for start, stop in pairwise(bounds)]
    return [(ids[start:last], [ids[at + 1] if mask[at] else -1 for at in range(start, last)]) for start, last in spans]


def batch_of(file: Path) -> list[tuple[list[tuple[int, int, int]], list[int]]]:
    """By row: (token, label, whether it is learned) and the positions, as Megatron-Bridge makes them.

    A sequence's last token and its mask are no input, its first token is no label; positions begin anew with each.
    """
    found = []
    for line in pl.read_parquet(file).to_dicts():
        ids, mask, starts = line["input_ids"], line["loss_mask"], line["seq_start_id"]
        assert len(mask) == len(ids)
        assert starts[0] == 0
        assert starts[-1] < len(ids)
        spans = list(pairwise([*starts, len(ids)]))
        assert all(stop - start > 1 for start, stop in spans)  # or it is a sequence of no tokens
        triples = [(ids[at], ids[at + 1], mask[at]) for start, stop in spans for at in range(start, stop - 1)]
        found.append((triples, [at for start, stop in spans for at in range(stop - start - 1)]))
    return found


def test_the_stage_gives_it_what_our_loader_gives_training(tmp_path: Path) -> None:
    tokens, _ = run(tmp_path, random_clean(), replace(PARAMS, formats=["rows", "megatron-bridge"]))
    for directory in (tokens / kind / split for kind in KINDS for split in SPLITS):
        rows = open_rows(directory)
        batch = rows.batch(np.arange(len(rows)))
        read = batch_of(directory / "packed.idx.parquet")
        for ids, labels, idx, (triples, positions) in zip(
            batch.input_ids.tolist(), batch.labels.tolist(), batch.seq_idx.tolist(), read, strict=True
        ):
            places = [at for at in range(len(ids) - 1) if idx[at] == idx[at + 1]]
            ours = [(ids[at], ids[at + 1], int(labels[at + 1] == ids[at + 1])) for at in places]
            assert triples == ours[: len(triples)]
            assert not any(learned for _, _, learned in ours[len(triples) :])  # padding
            assert positions == [at - idx.index(idx[at]) for at in places[: len(triples)]]


@pytest.mark.parametrize("count", [1, 3, 40])
def test_it_learns_what_our_rows_mark(tmp_path: Path, count: int) -> None:
    rows = random_rows(count)
    table = pq.read_table(write(tmp_path, rows, at_a_time=7))
    expected = [
        [
            (ids[:-1].tolist(), np.where(mask == RESPONSE, ids.astype(int), -1)[1:].tolist())
            for ids, mask in row
            if len(ids) > 1
        ]
        for row in rows
    ]
    assert [predictions(line) for line in table.to_pylist()] == expected
    assert table.schema.types == [pa.list_(pa.int32()), pa.list_(pa.int8()), pa.list_(pa.int32())]
    assert table.column_names == ["input_ids", "loss_mask", "seq_start_id"]


def test_row_groups_of_500_and_the_same_bytes_however_rows_come(tmp_path: Path) -> None:
    rows = random_rows(1203)
    files = [write(tmp_path / str(size), rows, size) for size in (1, 300, 1000, 1203)]
    assert len({file.read_bytes() for file in files}) == 1
    metadata = pq.ParquetFile(files[0]).metadata
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [500, 500, 203]
