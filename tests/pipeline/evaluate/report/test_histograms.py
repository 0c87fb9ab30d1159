"""Token and length counts of packed rows and of shards, whole and sampled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.evaluate.report import histograms
from pipeline.evaluate.report.histograms import evenly_spaced, survey_records, survey_rows
from pipeline.rows import CONTEXT, NEVER, RESPONSE, RowFiles, open_rows
from tests.packed import packed

SEQLEN = 64
PAD = 0


def sequence(ids: list[int], mark: int = RESPONSE) -> tuple[np.ndarray, np.ndarray]:
    return np.array(ids), np.array([NEVER] + [mark] * (len(ids) - 1))


def write_rows(directory: Path, rows: list[list[tuple[np.ndarray, np.ndarray]]]) -> Path:
    files = RowFiles(directory, seqlen=SEQLEN, vocab_size=300, pad_id=PAD)
    files.create(len(rows))
    files.write(0, *packed(rows))
    return directory


def test_padding_is_neither_a_token_nor_a_sequence(tmp_path):
    full = sequence([7] * SEQLEN)
    rows = [[sequence([0, 5, 5]), sequence([0, 5, 9, 9, 0], CONTEXT)], [full]]
    tokens, lengths = survey_rows(open_rows(write_rows(tmp_path, rows)))
    assert tokens.counts.tolist() == [SEQLEN, 3, 3, 2]  # of 7, of 5, of 0 and of 9
    assert tokens.making_up_half == 1
    found = {int(edge): int(count) for edge, count in zip(lengths.edges, lengths.counts, strict=False) if count}
    assert found == {3: 1, 5: 1, SEQLEN - 1: 1}  # bins of two tokens: 3 and 4, 5 and 6, 63 and 64
    assert lengths.edges[-1] > SEQLEN
    assert not tokens.sampled
    assert lengths.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("limit", [{"SAMPLED": 10}, {"SAMPLED_TOKENS": 10 * SEQLEN + 1}])
def test_of_many_rows_a_bounded_number_is_looked_at_from_the_first_on(tmp_path, monkeypatch, limit):
    for name, value in {**limit, "TOKENS_AT_A_TIME": 3 * SEQLEN}.items():
        monkeypatch.setattr(histograms, name, value)
    rows = open_rows(write_rows(tmp_path, [[sequence([1, number])] for number in range(2, 102)]))
    tokens, lengths = survey_rows(rows)
    assert tokens.sampled
    assert lengths.sampled
    assert lengths.counts.sum() == 10
    assert tokens.counts.tolist() == [10] + [1] * 10


@pytest.mark.parametrize("total", [0, 1, 9, 10, 11, 1000])
def test_indices_are_spaced_evenly(total):
    indices = evenly_spaced(total, 10)
    assert len(indices) == min(total, 10) == len(set(indices.tolist()))
    assert all(0 <= index < total for index in indices)
    if total > 1:
        gaps = np.diff(indices)
        assert gaps.max() - gaps.min() <= 1


def shards(directory: Path, lengths: list[list[int]]) -> dict[Path, int]:
    files = {}
    for number, shard in enumerate(lengths):
        path = directory / f"documents-{number:05}.parquet"
        pl.DataFrame({"text": ["é" * length for length in shard]}).write_parquet(path)
        files[path] = len(shard)
    return files


def test_record_lengths_are_characters_in_bins_that_hold_them_all(tmp_path):
    found = survey_records(shards(tmp_path, [[1, 100, 100], [1000]]), "documents")
    assert found.counts.sum() == 4
    assert not found.sampled
    for length, count in ((1, 1), (100, 2), (1000, 1)):
        (bin_,) = np.flatnonzero((found.edges[:-1] <= length) & (length < found.edges[1:]))
        assert found.counts[bin_] == count
    assert found.counts[0] > 0
    assert found.counts[-1] > 0


def test_records_without_a_character_are_counted_with_the_shortest(tmp_path):
    assert survey_records(shards(tmp_path, [[0, 0]]), "documents").counts.tolist() == [2]


def test_of_many_records_a_bounded_number_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(histograms, "SAMPLED", 8)
    monkeypatch.setattr(histograms, "SHARDS_SAMPLED", 2)
    found = survey_records(shards(tmp_path, [[10] * 6] * 5), "documents")
    assert found.sampled
    assert found.counts.sum() == 8
