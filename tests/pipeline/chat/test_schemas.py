"""Each schema is recognised by its fields, and what is wrong in a record is said by field."""

from typing import Any

import pytest

from pipeline.chat.schemas import FIELDS, SCHEMAS, Message, as_messages, find_schema

TURNS = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "p"},
    {"role": "assistant", "content": "r"},
]
SHAREGPT = [
    {"from": "system", "value": "s"},
    {"from": "human", "value": "p", "weight": 1},
    {"from": "gpt", "value": "r"},
]


def parse_record(record: dict[str, Any]) -> str | list[Message]:
    return find_schema(record).convert(record)


@pytest.mark.parametrize(
    ("record", "parsed"),
    [
        ({"text": "t"}, "t"),
        ({"prompt": "p", "completion": "r"}, as_messages("p", "r")),
        ({"input": "p", "output": "r"}, as_messages("p", "r")),
        ({"instruction": "p", "response": "r"}, as_messages("p", "r")),
        ({"instruction": "p", "output": "r"}, as_messages("p", "r")),
        ({"instruction": "p", "input": "i", "output": "r"}, as_messages("p\n\ni", "r")),
        ({"instruction": "p", "input": "", "output": "r"}, as_messages("p", "r")),
        ({"instruction": "p", "context": "i", "response": "r"}, as_messages("p\n\ni", "r")),
        ({"instruction": "p", "context": None, "response": "r"}, as_messages("p", "r")),
        ({"messages": TURNS}, TURNS),
        ({"messages": [{**turn, "name": "x"} for turn in TURNS], "tools": 1}, TURNS),
        ({"conversations": SHAREGPT, "id": "x"}, TURNS),
        ({"conversations": [{"from": "user", "value": "p"}, {"from": "model", "value": "r"}]}, as_messages("p", "r")),
        ({"instruction": "p", "input": "i", "output": "r", "text": "t"}, as_messages("p\n\ni", "r")),
        ({"text": "é\U0001f600", "source": 7}, "é\U0001f600"),
    ],
)
def test_schemas(record: dict[str, Any], parsed: object) -> None:
    assert parse_record(record) == parsed
    assert set(record) <= FIELDS | {"tools", "source", "id"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": 3}, "field text must be a string, not a number"),
        ({"prompt": "p", "completion": None}, "field completion must be a string, not null"),
        ({"prompt": ["p"], "completion": "r"}, "field prompt must be a string, not a list"),
        ({"instruction": "p", "input": {}, "context": 1, "output": "r"}, "field input must be a string"),
        ({"instruction": "p", "input": 0, "output": "r"}, "field input must be a string, not a number"),
        ({"instruction": "p", "context": False, "response": "r"}, "field context must be a string, not true or false"),
        ({"text": "\ud800"}, "half of a surrogate pair"),
        ({"messages": "hello"}, "field messages must be a list, not str"),
        ({"messages": ["hello"]}, r"messages\[0\] must be an object"),
        ({"messages": [{"role": "tool", "content": ""}]}, r"messages\[0\]\.role is 'tool'.*system, user"),
        ({"messages": [TURNS[1], {"role": "assistant", "content": None}]}, r"messages\[1\]\.content.*null"),
        ({"messages": [TURNS[1], {"role": "assistant"}]}, r"messages\[1\]\.content is missing"),
        ({"messages": [TURNS[1], TURNS[0], TURNS[2]]}, r"messages\[1\]\.role is 'system': only the first"),
        ({"messages": TURNS[:2]}, "no assistant message"),
        ({"messages": []}, "no assistant message"),
        ({"conversations": SHAREGPT[:2]}, "field conversations has no assistant message"),
        ({"conversations": [{"from": "bot", "value": ""}]}, r"conversations\[0\]\.from is 'bot'.*human, user, gpt"),
        ({"conversations": [{"role": "user", "content": ""}]}, r"conversations\[0\]\.from is missing"),
        ({"conversations": [*SHAREGPT, SHAREGPT[0]]}, r"conversations\[3\]\.from is 'system': only the first"),
    ],
)
def test_wrong_types_are_named_by_field(record: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_record(record)


@pytest.mark.parametrize(("record", "found"), [({"body": "b", "a": 1}, "a, body"), ({}, "none")])
def test_an_unknown_schema_is_told_with_all_known_ones(record: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=f"found {found};") as failure:
        parse_record(record)
    for schema in SCHEMAS:
        assert ", ".join(schema.fields) in str(failure.value)
