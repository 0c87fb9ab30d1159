"""The annotated records of many shards at a time: Polars takes about as long for a shard's few as for all of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from pipeline.preprocess.annotate import RECORDS, Annotate
from pipeline.preprocess.ledger import Ledger

AT_A_TIME = 1 << 17
BYTES_AT_A_TIME = 1 << 24
"""Records, and bytes of their files, if a shard has no more: what bounds the memory."""


def runs_of_shards(shards: Sequence[Annotate], ledger: Ledger) -> Iterator[range]:
    """All shards in order, as many of one kind together as are read at a time."""
    first = records = size = 0
    for index, shard in enumerate(shards):
        own = ledger.shard(index)
        own_records, own_size = own.stop - own.start, _path(shard).stat().st_size
        records, size = records + own_records, size + own_size
        if index > first and (shard.kind != shards[first].kind or records > AT_A_TIME or size > BYTES_AT_A_TIME):
            yield range(first, index)
            first, records, size = index, own_records, own_size
    if shards:
        yield range(first, len(shards))


def read_records(shards: Sequence[Annotate], run: range, columns: list[str] | None = None) -> pl.DataFrame:
    """What annotate wrote of the records of a run of shards, one shard after the other."""
    return pl.read_parquet([_path(shards[index]) for index in run], columns=columns, glob=False)


def _path(shard: Annotate) -> Path:
    return shard.folder / RECORDS
