"""What cleaning does to a record, and the bounds that a record must keep to. Per shard, nothing global.

Text: `\\r\\n` and `\\r` become `\\n`; NUL characters go; mojibake is undone, Unicode NFC (repair.py). Nothing else is
touched: in code, spaces mean something. A system message of white space alone is taken out of its conversation.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from pipeline.preprocess.repair import change, repair
from pipeline.shards.tables import DOCUMENTS, characters


def clean(table: pl.DataFrame, kind: str) -> pl.DataFrame:
    """The table of `kind` with its text cleaned; rows keep their places."""
    table = over_texts(table, kind, lambda texts: repair(_clean_text(texts)))
    if kind == DOCUMENTS:
        return table
    message = pl.element().struct
    is_blank_system = (message.field("role") == "system") & _is_blank(message.field("content"))
    return table.with_columns(messages=pl.col("messages").list.eval(pl.element().filter(~is_blank_system)))


def over_texts(table: pl.DataFrame, kind: str, function: Callable[[pl.Series], pl.Series]) -> pl.DataFrame:
    """The table with `function` called once, on all its texts: those of the documents, or of all messages."""
    if kind == DOCUMENTS:
        return table.with_columns(function(table["text"]).alias("text"))
    turns = table.select("messages").with_row_index("row").explode("messages", empty_as_null=False).unnest("messages")
    turns = turns.with_columns(function(turns["content"]).alias("content"))
    grouped = turns.group_by("row", maintain_order=True).agg(messages=pl.struct("role", "content"))
    return table.drop("messages").with_row_index("row").join(grouped, on="row", maintain_order="left").drop("row")


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


def _clean_text(texts: pl.Series) -> pl.Series:
    return change(texts, texts.str.contains_any(["\r", "\0"]), _without_returns_and_nuls)


def _without_returns_and_nuls(texts: pl.Series) -> pl.Series:
    newlines = texts.str.replace_all("\r\n", "\n", literal=True).str.replace_all("\r", "\n", literal=True)
    return newlines.str.replace_all("\0", "", literal=True)


def _has_blank(role: str) -> pl.Expr:
    message = pl.element().struct
    blank = (message.field("role") == role) & _is_blank(message.field("content"))
    return pl.col("messages").list.eval(blank).list.any()


def _is_blank(text: pl.Expr) -> pl.Expr:
    return text.str.strip_chars().str.len_chars() == 0
