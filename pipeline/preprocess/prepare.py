"""A shard's records as the rest of preprocess sees them: cleaned and, where the user wants it, rewritten.

Every pass that needs the texts prepares them anew: that is cheaper than keeping a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.preprocess.cleaning import clean, over_texts
from pipeline.preprocess.pii import mask
from pipeline.preprocess.quality import rewrite
from pipeline.shards.tables import DOCUMENTS, read_shard


@dataclass(frozen=True)
class Preparation:
    """The parameters that change texts."""

    quality: tuple[str, ...]
    """The presets that have rules."""
    pii: tuple[str, ...]


def prepare(path: Path, kind: str, preparation: Preparation) -> tuple[pl.DataFrame, dict[str, int]]:
    """`prepare_table` of a shard."""
    return prepare_table(read_shard(path), kind, preparation)


def prepare_table(table: pl.DataFrame, kind: str, preparation: Preparation) -> tuple[pl.DataFrame, dict[str, int]]:
    """The table with its texts as they will be written, and how many places were masked, by what they held.

    The quality presets' own rewriting is for documents; cleaning and masking are for conversations as well.
    """
    table = clean(table, kind)
    if kind == DOCUMENTS and preparation.quality:
        table = table.with_columns(rewrite(table["text"], preparation.quality).alias("text"))
    masked: dict[str, int] = {}
    if preparation.pii:

        def masking(texts: pl.Series) -> pl.Series:
            texts, counts = mask(texts, preparation.pii)
            masked.update(counts)
            return texts

        table = over_texts(table, kind, masking)
    return table, masked


def whole_texts(table: pl.DataFrame, kind: str) -> pl.Series:
    """One text for each record: a document's, or a conversation's messages, an empty line between them."""
    if kind == DOCUMENTS:
        return table["text"]
    contents = pl.col("messages").list.eval(pl.element().struct.field("content"))
    return table.select(text=contents.list.join("\n\n"))["text"]
