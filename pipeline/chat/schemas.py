"""The schemas in which people keep text and conversations, recognised by the fields of a record.

| fields                                                         | becomes                                |
|----------------------------------------------------------------|----------------------------------------|
| `messages`: list of {`role`, `content`}                        | the conversation (OpenAI's form)       |
| `conversations`: list of {`from`, `value`}                     | the conversation (ShareGPT's form)     |
| `prompt`, `completion`                                         | user, assistant                        |
| `instruction` (+ `input` or `context`), `response` or `output` | user (joined), assistant               |
| `input`, `output`                                              | user, assistant                        |
| `text`                                                         | a document                             |

The first row that fits counts; other fields are ignored. `pipeline.ingest` says where the record stands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypedDict

ROLES = ("system", "user", "assistant")


SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
}
"""The role of whom `from` names in ShareGPT's form."""


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


class Schema(NamedTuple):
    """The fields a record must have, and how its text or messages come out of them."""

    fields: tuple[str, ...]
    convert: Callable[[Mapping[str, Any]], str | list[Message]]


def find_schema(fields: Collection[str]) -> Schema:
    """The first schema that records with these fields have.

    Raises:
        ValueError: there is none.
    """
    for schema in SCHEMAS:
        if all(field in fields for field in schema.fields):
            return schema
    found = ", ".join(sorted(fields)) or "none"
    known = "; ".join(", ".join(schema.fields) for schema in SCHEMAS)
    raise ValueError(f"the fields fit no schema: found {found}; the schemas are: {known}")


def string_field(record: Mapping[str, Any], field: str, *, where: str = "") -> str:
    """The string at `record[field]`.

    Args:
        where: what the error puts before the field's name.

    Raises:
        ValueError: it is missing, no string, or has half of a surrogate pair (which UTF-8 cannot hold).
    """
    if field not in record:
        raise ValueError(f"field {where}{field} is missing")
    value = record[field]
    if not isinstance(value, str):
        raise ValueError(f"field {where}{field} must be a string, not {_type(value)}")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(
            f"field {where}{field} has half of a surrogate pair (\\ud800 to \\udfff): write the whole pair"
        )
    return value


def as_messages(prompt: str, response: str) -> list[Message]:
    """A prompt and its response as a conversation."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def _two_fields(prompt: str, response: str) -> Schema:
    return Schema(
        (prompt, response),
        lambda record: as_messages(string_field(record, prompt), string_field(record, response)),
    )


def _instruction(response: str) -> Schema:
    def convert(record: Mapping[str, Any]) -> list[Message]:
        parts = [string_field(record, "instruction")]
        parts += [string_field(record, field) for field in ("input", "context") if record.get(field) not in (None, "")]
        return as_messages("\n\n".join(parts), string_field(record, response))

    return Schema(("instruction", response), convert)


def _messages(record: Mapping[str, Any]) -> list[Message]:
    return _turns(record, "messages", ("role", "content"), {role: role for role in ROLES})


def _conversations(record: Mapping[str, Any]) -> list[Message]:
    return _turns(record, "conversations", ("from", "value"), SPEAKERS)


def _turns(record: Mapping[str, Any], field: str, keys: tuple[str, str], roles: Mapping[str, str]) -> list[Message]:
    """The turns in `record[field]`, whose speakers and words stand under `keys`."""
    turns = record[field]
    if not isinstance(turns, list):
        raise ValueError(f"field {field} must be a list, not {_type(turns)}")
    messages = [_message(turn, f"{field}[{position}]", keys, roles) for position, turn in enumerate(turns)]
    for position, message in enumerate(messages):
        if message["role"] == "system" and position > 0:
            raise ValueError(f"field {field}[{position}].{keys[0]} is 'system': only the first message may be")
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError(f"field {field} has no assistant message, so there is nothing to learn from it")
    return messages


def _message(turn: object, where: str, keys: tuple[str, str], roles: Mapping[str, str]) -> Message:
    speaker, words = keys
    if not isinstance(turn, Mapping):
        raise ValueError(f"field {where} must be an object with {speaker} and {words}, not {_type(turn)}")
    said_by = string_field(turn, speaker, where=f"{where}.")
    if said_by not in roles:
        raise ValueError(f"field {where}.{speaker} is {said_by!r}: the roles are {', '.join(roles)}")
    return {"role": roles[said_by], "content": string_field(turn, words, where=f"{where}.")}


def _type(value: object) -> str:
    names = {
        type(None): "null",
        dict: "an object",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)


SCHEMAS = (
    Schema(("messages",), _messages),
    Schema(("conversations",), _conversations),
    _two_fields("prompt", "completion"),
    _instruction("response"),
    _instruction("output"),
    _two_fields("input", "output"),
    Schema(("text",), lambda record: string_field(record, "text")),
)
FIELDS = frozenset({"input", "context"}.union(*(schema.fields for schema in SCHEMAS)))
"""Every field that a schema reads."""
