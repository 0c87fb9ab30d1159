"""What cleaning changes, what it leaves alone, and why a record is dropped."""

from typing import Any

import polars as pl
import pytest

from pipeline.preprocess.cleaning import bounds, clean, judge
from pipeline.shards.tables import MESSAGES


def documents(*texts: str) -> pl.DataFrame:
    return pl.DataFrame({"text": texts}, schema={"text": pl.String})


def conversations(*conversations: list[tuple[str, str]]) -> pl.DataFrame:
    rows = [[{"role": role, "content": content} for role, content in turns] for turns in conversations]
    return pl.DataFrame({"messages": rows}, schema={"messages": MESSAGES})


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        ("a\r\nb\rc\n\r\r\nd", "a\nb\nc\n\n\nd"),
        ("e\u0301 \u212b", "é Å"),
        ("a\0b", "ab"),
        ("  \ttrailing  \n\n ", "  \ttrailing  \n\n "),
        ("ﬁ ¼ \u200b", "ﬁ ¼ \u200b"),
        ("", ""),
    ],
)
def test_text(dirty: str, cleaned: str) -> None:
    assert clean(documents(dirty), "documents")["text"].to_list() == [cleaned]
    table = clean(conversations([("user", dirty), ("assistant", "r")]), "conversations")
    assert table["messages"].to_list() == [
        [{"role": "user", "content": cleaned}, {"role": "assistant", "content": "r"}]
    ]


def test_a_blank_system_message_goes() -> None:
    turns = [("user", " "), ("assistant", "r")]
    table = clean(conversations([("system", " \0\n"), *turns], [("system", "s"), *turns], turns), "conversations")
    assert [[m["role"] for m in messages] for messages in table["messages"].to_list()] == [
        ["user", "assistant"],
        ["system", "user", "assistant"],
        ["user", "assistant"],
    ]


def verdicts(table: pl.DataFrame, kind: str) -> list[Any]:
    return judge(bounds(table, kind), kind, min_chars=3, max_chars=10)["reason"].to_list()


def test_bounds_of_documents() -> None:
    texts = ["", "ab", " ab \n", "abc", "é" * 10, "é" * 11]
    expected = ["too_short", "too_short", "too_short", None, None, "too_long"]
    assert verdicts(documents(*texts), "documents") == expected
    details = judge(bounds(documents(*texts), "documents"), "documents", 3, 10)["detail"].to_list()
    assert details == ["0 characters", "2 characters", "5 characters", None, None, "11 characters"]


def test_bounds_of_conversations() -> None:
    table = conversations(
        [("user", "p"), ("assistant", "r")],
        [("user", " \n"), ("assistant", "r")],
        [("user", "p"), ("assistant", "\t")],
        [("user", ""), ("assistant", "")],
        [("user", "12345"), ("assistant", "12345")],
        [("user", "12345"), ("assistant", "123456")],
        [("user", "p"), ("assistant", "r"), ("user", ""), ("assistant", "r")],
        [("assistant", "r")],
    )
    expected = [None, "empty_prompt", "empty_response", "empty_prompt", None, "too_long", "empty_prompt", None]
    assert verdicts(table, "conversations") == expected
