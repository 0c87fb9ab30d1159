"""Some of the packed rows of one kind and split: the part of packing that is spread over processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.rows import RESPONSE, RowFiles
from pipeline.tokenize.encoded import Places


@dataclass(frozen=True)
class WriteRows:
    """Write rows from number `first` on into files that are there, each of the next `counts[r]` of the sequences."""

    files: RowFiles
    first: int
    places: Places
    counts: np.ndarray
    folder: None = None

    @property
    def name(self) -> str:
        """The rows, as an error names them."""
        return f"{self.files.directory.name} rows from {self.first}"


def write_rows(job: WriteRows) -> int:
    """Write them: how many of their tokens are RESPONSE."""
    sequences = job.places.read()
    job.files.write(job.first, sequences, job.counts)
    return int(np.count_nonzero(sequences.mask == RESPONSE))
