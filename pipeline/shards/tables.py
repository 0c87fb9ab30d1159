"""The tables of records that stages hand on, as data/README.md describes them: names, columns, writing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

DOCUMENTS = "documents"
CONVERSATIONS = "conversations"
KINDS = (DOCUMENTS, CONVERSATIONS)
SPLITS = ("train", "validation", "test")

MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
"""The type of a conversation's `messages`."""

_PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "statistics": False,
    "row_group_size": 1 << 16,
}


def columns(kind: str, *, split: bool) -> pl.Schema:
    """The columns of a table of `kind`; with `split`, the split that the user's files fix is one of them."""
    types: dict[str, pl.DataType] = {"id": pl.String(), "source": pl.String(), "group": pl.String()}
    if split:
        types["split"] = pl.String()
    types |= {"text": pl.String()} if kind == DOCUMENTS else {"messages": MESSAGES}
    return pl.Schema(types)


def require_columns(directory: Path, kinds: Mapping[str, str], *, split: bool) -> None:
    """Check that tables have the columns of their kinds, by the ends of their files alone.

    Args:
        kinds: of each table, by its path in `directory`.
        split: as for `columns`.

    Raises:
        ValueError: one of them has not, or is no Parquet.
    """
    for name, kind in kinds.items():
        remedy = f"remove {directory}/ and run `dvc repro`"
        try:
            found = pl.scan_parquet(directory / name, glob=False).collect_schema()
        except Exception as error:  # Polars', PyArrow's or the system's
            raise ValueError(f"{directory / name} is not readable as Parquet ({error}): {remedy}") from None
        if found != columns(kind, split=split):
            raise ValueError(f"{directory / name} has {describe(found)}, not the columns of {kind}: {remedy}")


def read_shard(path: Path, wanted: Sequence[str] | None = None) -> pl.DataFrame:
    """The records of a shard that has the columns of its kind.

    Args:
        wanted: the columns to read; all, if None.

    Raises:
        ValueError: there is a null where no stage writes one, a conversation without messages, or an unknown split.
    """
    table = pl.read_parquet(path, columns=None if wanted is None else list(wanted), glob=False)
    for column in table:
        if problem := _problem(column):
            raise ValueError(f"{path}: column {column.name} has {problem}: remove {path} and run `dvc repro`")
    return table


def _problem(column: pl.Series) -> str | None:
    """What is wrong with the values, told without looking at texts."""
    if column.name == "split":
        unknown = column.drop_nulls().unique().sort().to_list()
        unknown = [split for split in unknown if split not in SPLITS]
        return f"the splits {unknown}, of which there are only {', '.join(SPLITS)}" if unknown else None
    if nulls := column.null_count():
        return f"{nulls} nulls in {len(column)} records"
    if column.dtype == MESSAGES:
        if empty := int((column.list.len() == 0).sum()):
            return f"no messages in {empty} of {len(column)} records"
        messages = column.explode().struct  # of a message that is null, the fields are
        nulls = max(messages.field(name).null_count() for name in messages.fields)
        return f"{nulls} nulls in its messages" if nulls else None
    return None


def describe(schema: pl.Schema) -> dict[str, str]:
    """The schema as a manifest holds it."""
    return {name: str(dtype) for name, dtype in schema.items()}


def shard_file(kind: str, index: int) -> str:
    """The file name of a shard."""
    return f"{kind}-{index:05d}.parquet"


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write Parquet: equal tables give equal bytes."""
    table.rechunk().write_parquet(path, **_PARQUET)


def join_tables(parts: list[Path], path: Path) -> None:
    """Write what `write_table` would of the parts' rows, one part after the other, without holding them all."""
    pl.scan_parquet(parts, glob=False).sink_parquet(path, **_PARQUET)


def characters(kind: str) -> pl.Expr:
    """The number of characters in each record of a table of `kind`."""
    if kind == DOCUMENTS:
        return pl.col("text").str.len_chars().cast(pl.Int64)
    lengths = pl.element().struct.field("content").str.len_chars()
    return pl.col("messages").list.eval(lengths).list.sum().cast(pl.Int64)
