"""The packed-row format, written and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.rows import CONTEXT, IGNORED, NEVER, RESPONSE, RowFiles, open_rows
from tests.packed import Sequence, packed

CONVERSATION = (np.array([0, 7, 8, 9]), np.array([NEVER, CONTEXT, RESPONSE, RESPONSE]))
DOCUMENT = (np.array([0, 5, 6]), np.array([NEVER, RESPONSE, RESPONSE]))


def write(directory: Path, rows: list[list[Sequence]], at_a_time: int = 2, **sizes: int) -> None:
    files = RowFiles(directory, **({"seqlen": 8, "vocab_size": 10, "pad_id": 0} | sizes))
    files.create(len(rows))
    for first in reversed(range(0, len(rows), at_a_time)):  # the order makes no difference
        files.write(first, *packed(rows[first : first + at_a_time]))


def test_rows_come_back(tmp_path: Path) -> None:
    write(tmp_path, [[CONVERSATION, DOCUMENT], [DOCUMENT]])
    rows = open_rows(tmp_path)
    assert (len(rows), rows.seqlen) == (2, 8)
    assert rows.input_ids.tolist() == [[0, 7, 8, 9, 0, 5, 6, 0], [0, 5, 6, 0, 0, 0, 0, 0]]
    assert rows.loss_mask.tolist() == [[0, 2, 1, 1, 0, 1, 1, 0], [0, 1, 1, 0, 0, 0, 0, 0]]
    assert rows.seq_idx.tolist() == [[0, 0, 0, 0, 1, 1, 1, 2], [0, 0, 0, 1, 1, 1, 1, 1]]
    assert all(isinstance(array, np.memmap) for array in (rows.input_ids, rows.loss_mask, rows.seq_idx))


def test_labels(tmp_path: Path) -> None:
    write(tmp_path, [[CONVERSATION, DOCUMENT], [DOCUMENT]])
    responses, everything = open_rows(tmp_path), open_rows(tmp_path, "all")
    batch = responses.batch(np.array([1, 0]))
    i = IGNORED
    assert batch.labels.tolist() == [[i, 5, 6, i, i, i, i, i], [i, i, 8, 9, i, 5, 6, i]]
    assert everything.batch([0]).labels.tolist() == [[i, 7, 8, 9, i, 5, 6, i]]
    assert [array.dtype for array in batch] == [np.int64, np.int64, np.int32]
    assert [(rows.batch([0, 1]).labels != i).sum() for rows in (responses, everything)] == [6, 7]


def test_every_target_has_its_sequence_before_it(tmp_path: Path) -> None:
    """So the shift loses no target."""
    write(tmp_path, [[CONVERSATION, DOCUMENT], [DOCUMENT, CONVERSATION]])
    batch = open_rows(tmp_path, "all").batch([0, 1])
    same = batch.seq_idx[:, 1:] == batch.seq_idx[:, :-1]
    assert ((batch.labels[:, 1:] != IGNORED) & same).sum() == (batch.labels != IGNORED).sum() > 0


@pytest.mark.parametrize(("vocab_size", "dtype"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_ids_are_as_wide_as_the_vocabulary_needs(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    highest = (np.array([0, vocab_size - 1]), np.array([NEVER, RESPONSE]))
    write(tmp_path, [[highest]], vocab_size=vocab_size)
    rows = open_rows(tmp_path)
    assert rows.input_ids.dtype == dtype
    assert rows.batch([0]).labels[0, 1] == vocab_size - 1


def test_more_sequences_in_a_row_than_16_bits_count(tmp_path: Path) -> None:
    seqlen = 2**17 + 2
    pair = (np.array([0, 1]), np.array([NEVER, RESPONSE]))
    write(tmp_path, [[pair] * (seqlen // 2)], seqlen=seqlen)
    assert open_rows(tmp_path).batch([0]).seq_idx[0, -1] == 2**16


def test_equal_rows_are_equal_bytes_however_many_are_added_at_a_time(tmp_path: Path) -> None:
    for name, at_a_time in (("a", 1), ("b", 3)):
        write(tmp_path / name, [[CONVERSATION], [DOCUMENT, DOCUMENT], [DOCUMENT]], at_a_time)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"input_ids\.npy: no packed rows here; run the tokenize stage"):
        open_rows(tmp_path)
    write(tmp_path, [[DOCUMENT]])
    np.save(tmp_path / "seq_idx.npy", np.zeros((2, 8), dtype=np.uint16))
    with pytest.raises(ValueError, match=r"one shape \(rows, seqlen\), found \(1, 8\), \(1, 8\), \(2, 8\)"):
        open_rows(tmp_path)
    (tmp_path / "seq_idx.npy").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"seq_idx\.npy: not a readable \.npy file"):
        open_rows(tmp_path)
    (tmp_path / "seq_idx.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"seq_idx\.npy: not a readable \.npy file"):
        open_rows(tmp_path)
