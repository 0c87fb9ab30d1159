"""What was found: which training records are dropped, and what is written of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.arrays import I64
from pipeline.preprocess.contamination.listing import COLUMNS
from pipeline.preprocess.contamination.lookup import read_ids
from pipeline.preprocess.contamination.weigh import PAIRS, SHARES, WORST
from pipeline.shards.tables import join_tables, write_table

CONTAMINATION, COMMON = "contamination.parquet", "common.parquet"
"""The files, as data/README.md describes them."""


@dataclass(frozen=True)
class Contamination:
    """It lies in files; nothing is in memory for each record."""

    weighed: Mapping[int, Path]
    """By the number of the shard, where there are hits, the folder that `weigh` wrote into."""
    evaluation: Path
    """What `merge` wrote."""
    share: float
    """Of an evaluation record, for which a training record is dropped."""
    hits: int
    common_ngrams: int
    """That are left aside as in common use."""
    common: pl.DataFrame
    """The evaluation records that these are put down to: `listing.COLUMNS`."""

    def to_drop(self, run: range, starts: Sequence[int]) -> tuple[I64, I64]:
        """The training records of a run of shards that have enough of an evaluation record to be dropped, by their
        numbers, and the number of the one that each has most of, for `ids`.

        Args:
            starts: the number of each shard's first record.
        """
        rows, evaluations = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for shard in run:
            if shard in self.weighed:
                worst = np.load(self.weighed[shard] / WORST)
                worst = worst[worst["share"] >= self.share]
                rows.append(worst["row"].astype(np.int64) + starts[shard])
                evaluations.append(worst["evaluation"].astype(np.int64))
        return np.concatenate(rows), np.concatenate(evaluations)

    def ids(self, evaluations: I64) -> pl.Series:
        """Of evaluation records, by their numbers."""
        return read_ids(self.evaluation, evaluations) if len(evaluations) else pl.Series([], dtype=pl.String)

    def shares(self, shard: int) -> Path | None:
        """SHARES of the shard, where there are hits."""
        return self.weighed[shard] / SHARES if shard in self.weighed else None

    def write(self, folder: Path, hits: list[Path]) -> dict[str, int]:
        """Write the files, of the tables of the shards' hits: the rows of each."""
        if hits:
            join_tables(hits, folder / CONTAMINATION)
        else:
            write_table(PAIRS.to_frame(), folder / CONTAMINATION)
        write_table(self.common, folder / COMMON)
        return {CONTAMINATION: self.hits, COMMON: self.common.height}


NOTHING = Contamination({}, Path(), 0.0, 0, 0, COLUMNS.to_frame())
"""Where nothing is looked for."""
