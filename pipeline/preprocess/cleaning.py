"""What cleaning does to a record, and the bounds that a record must keep to. Per shard, nothing global.

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


def bounds(table: pl.DataFrame, kind: str) -> pl.DataFrame:
    """What `judge` looks at, for each row of a cleaned table: `characters`, and

    - of documents `inner_characters`, less the white space at the ends;
    - of conversations `empty_prompt` and `empty_response`: a user's or an assistant's message is blank.
    """
    if kind == DOCUMENTS:
        return table.select(
            characters=characters(kind), inner_characters=pl.col("text").str.strip_chars().str.len_chars()
        )
    return table.select(
        characters=characters(kind), empty_prompt=_has_blank("user"), empty_response=_has_blank("assistant")
    )


def judge(bounds: pl.DataFrame, kind: str, min_chars: int, max_chars: int) -> pl.DataFrame:
    """For each row of what `bounds` gives: `reason` to drop it (null: none) and `detail`.

    The reasons are `too_long` and, for documents, `too_short`, for conversations `empty_prompt` and `empty_response`.
    """
    if kind == DOCUMENTS:
        faults = {"too_short": pl.col("inner_characters") < min_chars}
    else:
        faults = {name: pl.col(name) for name in ("empty_prompt", "empty_response")}
    faults["too_long"] = pl.col("characters") > max_chars
    reason = pl.coalesce(pl.when(fault).then(pl.lit(name)) for name, fault in faults.items())
    detail = pl.when(reason.is_not_null()).then(pl.format("{} characters", "characters"))
    return bounds.select(reason=reason, detail=detail)


def _clean_text(text: pl.Expr) -> pl.Expr:
    newlines = text.str.replace_all("\r\n", "\n", literal=True).str.replace_all("\r", "\n", literal=True)
    return newlines.str.replace_all("\0", "", literal=True).str.normalize("NFC")


def _has_blank(role: str) -> pl.Expr:
    message = pl.element().struct
    blank = (message.field("role") == role) & _is_blank(message.field("content"))
    return pl.col("messages").list.eval(blank).list.any()


def _is_blank(text: pl.Expr) -> pl.Expr:
    return text.str.strip_chars().str.len_chars() == 0
