"""Some of the packed rows of one kind and split: the part of packing that is spread over processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.rows import RESPONSE, RowFiles
from pipeline.tokenize.plan import PlanFiles, read_plan


class Written(NamedTuple):
    """What is in some rows."""

    sequences: int
    tokens: int
    supervised: int
    """Tokens that are RESPONSE."""

    def plus(self, other: Written) -> Written:
        """What is in both."""
        return Written(*(own + more for own, more in zip(self, other, strict=True)))


@dataclass(frozen=True)
class WriteRows:
    """Write `count` rows from number `first` on into files that are there, as a plan has them."""

    files: RowFiles
    plan: PlanFiles
    first: int
    count: int
    folder: None = None

    @property
    def name(self) -> str:
        """The rows, as an error names them."""
        return f"{self.files.directory.name} rows from {self.first}"


def write_rows(job: WriteRows) -> Written:
    """Write them."""
    sequences, counts = read_plan(job.plan).sequences(job.first, job.count)
    job.files.write(job.first, sequences, counts)
    supervised = int(np.count_nonzero(sequences.mask == RESPONSE))
    return Written(len(sequences.lengths), len(sequences.ids), supervised)
