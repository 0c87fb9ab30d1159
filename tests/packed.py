"""Rows written by hand, as the writers of rows take them."""

from __future__ import annotations

import numpy as np

from pipeline.rows import Sequences

Sequence = tuple[np.ndarray, np.ndarray]
"""ids and mask"""


def packed(rows: list[list[Sequence]]) -> tuple[Sequences, np.ndarray]:
    """The sequences of all rows, and how many are each row's."""
    sequences = [sequence for row in rows for sequence in row]
    ids, mask = (np.concatenate(column) for column in zip(*sequences, strict=True))
    return Sequences(ids, mask, np.array([len(ids) for ids, _ in sequences])), np.array([len(row) for row in rows])
