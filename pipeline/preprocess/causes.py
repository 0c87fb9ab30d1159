"""The ids of the records for whose sake others are dropped, in files: what a detail names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from pipeline import mapped
from pipeline.arrays import I64
from pipeline.preprocess.annotate import Annotate
from pipeline.preprocess.ledger import Ledger
from pipeline.preprocess.records import read_records, runs_of_shards


class Causes:
    """Their ids, by their numbers."""

    def __init__(self, ledger: Ledger, shards: Sequence[Annotate]) -> None:
        is_cause = ledger.make("is-cause", "?")
        for rows in ledger.blocks():
            cause = ledger["cause"][rows]
            is_cause[cause[cause >= 0]] = True
        folder = ledger.folder
        self._numbers = mapped.write(folder / "causes.npy", "i8", (rows[is_cause[rows]] for rows in ledger.blocks()))
        text = folder / "cause-ids"
        self._ends = mapped.write(folder / "cause-ends.npy", "i8", _write_ids(ledger, shards, is_cause, text))
        self._text = np.memmap(text, "u1", "r").data if text.stat().st_size else memoryview(b"")

    def ids(self, causes: I64) -> pl.Series:
        """The id of each, null for -1."""
        known = np.flatnonzero(causes >= 0)
        places = np.searchsorted(self._numbers, causes[known])
        starts = np.where(places > 0, self._ends[places - 1], 0)
        parts = map(slice, starts.tolist(), self._ends[places].tolist())
        ids = pl.Series([str(self._text[part], "utf-8") for part in parts], dtype=pl.String)
        return pl.repeat(None, len(causes), dtype=pl.String, eager=True).scatter(known, ids)


def _write_ids(ledger: Ledger, shards: Sequence[Annotate], is_cause: np.ndarray, path: Path) -> Iterator[I64]:
    """Write the ids one after another, and yield where each ends."""
    end = 0
    with path.open("wb") as file:
        for run in runs_of_shards(shards, ledger):
            wanted = np.flatnonzero(is_cause[ledger.shards(run)])
            if wanted.size:
                ids = read_records(shards, run, ["id"])["id"].gather(wanted)
                file.write("".join(ids).encode())
                ends = end + np.cumsum(ids.str.len_bytes().to_numpy(), dtype=np.int64)
                end = int(ends[-1])
                yield ends
