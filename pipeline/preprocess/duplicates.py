"""Exact duplicates: which record of each content stays, and which groups they tie together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import polars as pl

from pipeline.shards.tables import DOCUMENTS

_PRECEDENCE = {"test": 0, "validation": 1}
_FREE = len(_PRECEDENCE)


def content_keys(table: pl.DataFrame, kind: str) -> list[bytes]:
    """128 bits for each row of a cleaned table: equal where kind and content are (a string is no list)."""
    contents = table["text" if kind == DOCUMENTS else "messages"].to_list()
    return [hashlib.blake2b(json.dumps(content).encode(), digest_size=16).digest() for content in contents]


def mark_duplicates(records: pl.DataFrame) -> pl.DataFrame:
    """Give all but one of the records with the same content the reason they are dropped for.

    The one that stays is the first in the user's test split, else validation, else at all: what the
    user holds out stays whole.

    Args:
        records: `id`, `key`, `split` (fixed by the user, or null), `reason`, `detail`; in the order of the
            shards. Rows with a reason are dropped already and take no part.

    Returns:
        The same rows with `reason` and `detail` (the id of the one that stays) set for duplicates:
        `duplicate_of_held_out` where that one is held out and this one is not or less so, else `duplicate`.
    """
    rank = pl.col("split").replace_strict(_PRECEDENCE, default=_FREE, return_dtype=pl.Int8)
    taking_part = records.with_row_index("row").with_columns(rank=rank).filter(pl.col("reason").is_null())
    first = taking_part.sort("rank", "row").group_by("key", maintain_order=True).first()
    stays = first.select("key", first_row="row", first_id="id", first_rank="rank")
    held_out = (pl.col("first_rank") < _FREE) & (pl.col("first_rank") < pl.col("rank"))
    reason = pl.when(held_out).then(pl.lit("duplicate_of_held_out")).otherwise(pl.lit("duplicate"))
    dropped = (
        taking_part.join(stays, on="key")
        .filter(pl.col("row") != pl.col("first_row"))
        .select("row", new_reason=reason, new_detail="first_id")
    )
    return (
        records.with_row_index("row")
        .join(dropped, on="row", how="left", maintain_order="left")
        .with_columns(
            reason=pl.coalesce("reason", "new_reason"),
            detail=pl.coalesce("detail", "new_detail"),
        )
        .drop("row", "new_reason", "new_detail")
    )


def tied_groups(records: pl.DataFrame) -> dict[str, str]:
    """Groups that share content, directly or through others, each with the first by name of those it is tied to.

    Args:
        records: `key` and `group` of the records to compare. Groups that share nothing are not in the answer.
    """
    shared = records.select("key", "group").unique().group_by("key").agg(pl.col("group").sort())
    return connect(shared.filter(pl.col("group").list.len() > 1)["group"].to_list())


def connect(ties: Iterable[list[str]]) -> dict[str, str]:
    """Each name in `ties` with the smallest name it is tied to, directly or through others."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for tie in ties:
        for name in tie:
            low, high = sorted((root(tie[0]), root(name)))
            parent[high] = low
    return {name: root(name) for name in parent}
