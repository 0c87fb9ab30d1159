"""What cleaning does to a record, and which records are not worth keeping. Per shard, nothing global.

Text: Unicode NFC; `\\r\\n` and `\\r` become `\\n`; NUL characters go. Nothing else is touched: in code, spaces mean
something. A system message of white space alone is taken out of its conversation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pipeline.shards.tables import DOCUMENTS, characters

if TYPE_CHECKING:
    from pipeline.params import PreprocessParams


def clean(table: pl.DataFrame, kind: str) -> pl.DataFrame:
    """The table of `kind` with its text cleaned; rows keep their places."""
    if kind == DOCUMENTS:
        return table.with_columns(_clean_text(pl.col("text")))
    message = pl.element().struct
    is_empty_system = (message.field("role") == "system") & _is_blank(message.field("content"))
    kept = pl.col("messages").list.eval(pl.element().filter(~is_empty_system))
    cleaned = pl.struct(role=message.field("role"), content=_clean_text(message.field("content")))
    return table.with_columns(messages=kept).with_columns(pl.col("messages").list.eval(cleaned))


def judge(table: pl.DataFrame, kind: str, params: PreprocessParams) -> pl.DataFrame:
    """For each row of a cleaned table, in order: `reason` to drop it (null: none) and `detail`.

    Reasons: `too_short` (documents), `empty_prompt` and `empty_response` (conversations), `too_long`.
    """
    size = characters(kind)
    if kind == DOCUMENTS:
        size_of_words = pl.col("text").str.strip_chars().str.len_chars()
        faults = {"too_short": size_of_words < params.min_chars}
    else:
        faults = {"empty_prompt": _has_blank("user"), "empty_response": _has_blank("assistant")}
    faults["too_long"] = size > params.max_chars
    reason = pl.coalesce(pl.when(fault).then(pl.lit(name)) for name, fault in faults.items())
    detail = pl.when(reason.is_not_null()).then(pl.format("{} characters", size))
    return table.select(reason=reason, detail=detail)


def _clean_text(text: pl.Expr) -> pl.Expr:
    newlines = text.str.replace_all("\r\n", "\n", literal=True).str.replace_all("\r", "\n", literal=True)
    return newlines.str.replace_all("\0", "", literal=True).str.normalize("NFC")


def _has_blank(role: str) -> pl.Expr:
    message = pl.element().struct
    blank = (message.field("role") == role) & _is_blank(message.field("content"))
    return pl.col("messages").list.eval(blank).list.any()


def _is_blank(text: pl.Expr) -> pl.Expr:
    return text.str.strip_chars("\0 \t\r\n").str.len_chars() == 0
