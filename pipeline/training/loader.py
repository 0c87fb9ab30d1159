"""Packed rows -> batches on the device; which rows, training's `order` says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from pipeline.rows import Rows


class Batch:
    """Rows on the device: `input_ids`, `labels` (-100 where not supervised) and `seq_idx`, each (rows, seqlen)."""

    def __init__(self, rows: Rows, indices: np.ndarray, device: torch.device) -> None:
        arrays = rows.batch(indices)
        self.targets = int((arrays.labels[:, 1:] >= 0).sum())  # counted here: no sync with the device
        self.input_ids = torch.from_numpy(arrays.input_ids).to(device, non_blocking=True)
        self.labels = torch.from_numpy(arrays.labels).to(device, non_blocking=True)
        self.seq_idx = torch.from_numpy(arrays.seq_idx).to(device, non_blocking=True)


def in_order(rows: int, batch_size: int) -> Iterator[np.ndarray]:
    """Batches of all row indices, each once."""
    for first in range(0, rows, batch_size):
        yield np.arange(first, min(first + batch_size, rows))
