"""The first step: look at the records of a shard and keep what decisions need, one short row for each record.

Beside the table go the shard's sorted runs of names (see runs.py). No threshold plays a part here, so that a changed
one needs no second look.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.preprocess.cleaning import bounds
from pipeline.preprocess.hashes import key_names, text_names
from pipeline.preprocess.language import identify
from pipeline.preprocess.near.minhash import MinHash, band_names
from pipeline.preprocess.prepare import Preparation, prepare, whole_texts
from pipeline.preprocess.quality import measure
from pipeline.preprocess.runs import write_run
from pipeline.shards.tables import DOCUMENTS, write_table

RECORDS, CONTENTS, GROUPS, BANDS = "records.parquet", "contents", "groups", "bands"
"""The files of an annotated shard: a row per record; runs of the contents', the groups' and the bands' names."""


@dataclass(frozen=True)
class Annotate:
    """Look at the records of one shard of `kind`; write into `folder`."""

    path: Path
    kind: str
    preparation: Preparation
    language_model: Path | None
    near: MinHash | None
    folder: Path

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        return self.path.name


class Annotated(NamedTuple):
    """What an annotated shard comes to."""

    records: int
    sources: list[str]
    masked: dict[str, int]


def annotate(job: Annotate) -> Annotated:
    """Write what decisions need of a shard."""
    table, masked = prepare(job.path, job.kind, job.preparation)
    texts = whole_texts(table, job.kind)
    groups = key_names("group", (group.encode() for group in table["group"].to_list()))
    columns = [table.select("id", "source", "group", "split").with_columns(group_hash=groups[0])]
    columns.append(bounds(table, job.kind))
    if job.kind == DOCUMENTS and job.preparation.quality:
        columns.append(measure(texts, job.preparation.quality))
    if job.kind == DOCUMENTS and job.language_model:
        columns.append(identify(texts, job.language_model))
    write_table(pl.concat(columns, how="horizontal"), job.folder / RECORDS)
    rows = np.arange(table.height, dtype=np.uint32)
    write_run(job.folder / CONTENTS, *text_names(job.kind, contents(table, job.kind)), rows)
    write_run(job.folder / GROUPS, *groups, rows)
    if job.near:
        write_run(job.folder / BANDS, *band_names(texts, job.kind, job.near))
    return Annotated(table.height, table["source"].unique().sort().to_list(), masked)


def contents(table: pl.DataFrame, kind: str) -> pl.Series:
    """What makes two records of a kind exact duplicates: a document's text, a conversation's roles and words.

    A NUL parts roles and words; cleaned texts have none.
    """
    if kind == DOCUMENTS:
        return table["text"]
    message = pl.concat_str(pl.element().struct.field("role", "content"), separator="\0")
    return table.select(text=pl.col("messages").list.eval(message).list.join("\0"))["text"]
