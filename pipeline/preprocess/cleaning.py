"""What cleaning does to a record, and which records are not worth keeping. Per shard, nothing global.

Text: Unicode NFC; `\\r\\n` and `\\r` become `\\n`; NUL characters go. Nothing else is touched: in code, spaces mean
something. A system message of white space alone is taken out of its conversation.
"""

from __future__ import annotations

import polars as pl

from pipeline.shards.tables import DOCUMENTS, characters


def clean(table: pl.DataFrame, kind: str) -> pl.DataFrame:
    """The table of `kind` with its text cleaned; rows keep their places."""
    if kind == DOCUMENTS:
        return table.with_columns(_clean_text(pl.col("text")))
    message = pl.element().struct
    cleaned = pl.struct(role=message.field("role"), content=_clean_text(message.field("content")))
    is_blank_system = (message.field("role") == "system") & _is_blank(message.field("content"))
    messages = pl.col("messages").list.eval(cleaned).list.eval(pl.element().filter(~is_blank_system))
    return table.with_columns(messages=messages)


def judge(table: pl.DataFrame, kind: str, min_chars: int, max_chars: int) -> pl.DataFrame:
    """For each row of a cleaned table, in order: `reason` to drop it (null: none) and `detail`.

    The reasons are `too_long` and, for documents, `too_short` (space at the ends does not count); for
    conversations, `empty_prompt` and `empty_response`: a user's or an assistant's message is blank.
    """
    size = characters(kind)
    if kind == DOCUMENTS:
        size_of_words = pl.col("text").str.strip_chars().str.len_chars()
        faults = {"too_short": size_of_words < min_chars}
    else:
        faults = {"empty_prompt": _has_blank("user"), "empty_response": _has_blank("assistant")}
    faults["too_long"] = size > max_chars
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
    return text.str.strip_chars().str.len_chars() == 0
