"""The annotated records of many shards at a time: Polars takes about as long for a shard's few as for all of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from pipeline.preprocess.annotate import RECORDS, Annotate
from pipeline.preprocess.ledger import Ledger

AT_A_TIME = 1 << 17
"""Records, if a shard has no more: what bounds the memory."""


def runs_of_shards(shards: Sequence[Annotate], ledger: Ledger) -> Iterator[range]:
    """All shards in order, as many of one kind together as have `AT_A_TIME` records."""
    first = 0
    for index in range(1, len(shards) + 1):
        if (
            index == len(shards)
            or shards[index].kind != shards[first].kind
            or ledger.shard(index).stop - ledger.shard(first).start > AT_A_TIME
        ):
            yield range(first, index)
            first = index


def read_records(shards: Sequence[Annotate], run: range, columns: list[str] | None = None) -> pl.DataFrame:
    """What annotate wrote of the records of a run of shards, one shard after the other."""
    return pl.read_parquet([shards[index].folder / RECORDS for index in run], columns=columns)
