"""One record of a user's file: which schema its fields have, and what is wrong with it if none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from pipeline.chat.schemas import Schema, find_schema, string_field
from pipeline.ingest.pieces import EXCERPT_BYTES, BadRecord, Record
from pipeline.sources import File

MESSAGE_CHARACTERS = 500
DEEPEST = 400
"""Objects and lists in one another. Python's own limit depends on its version and on who calls."""


def bad_record(
    file: File, line: int | None, reason: str, message: str, excerpt: bytes = b"", *, unit: str = "line"
) -> BadRecord:
    """A bad record of `file`; its message is cut to a length that people read and made printable."""
    where = file.location
    if line is not None:
        where += f":{line}" if unit == "line" else f", {unit} {line}"
    if len(message) > MESSAGE_CHARACTERS:
        message = f"{message[:MESSAGE_CHARACTERS]}…"
    message = message.encode("utf-8", "backslashreplace").decode()
    return BadRecord(file.source, file.name, line, reason, message, excerpt[:EXCERPT_BYTES], where)


def too_large(file: File, line: int, size: int, limit: int, excerpt: bytes = b"", *, unit: str = "line") -> BadRecord:
    """A record longer than `ingest.max_record_mb`."""
    message = f"{size:,} bytes, above the limit of {limit:,}: cut it up, or raise ingest.max_record_mb"
    return bad_record(file, line, "too_large", message, excerpt, unit=unit)


def parse_json(file: File, line: int, data: bytes) -> Record | BadRecord:
    """The record in a line of JSON."""
    if _depth(data) > DEEPEST:
        return bad_record(file, line, "too_deep", f"nested more than {DEEPEST} deep", data)
    try:
        fields = _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return bad_record(file, line, "not_utf8", f"not UTF-8: {error.reason}; write the file as UTF-8", data)
    except _KeyTwiceError as error:
        return bad_record(file, line, "key_twice", f"the key {error} stands twice in an object: leave one", data)
    except ValueError as error:
        message = f"not JSON: {error}; each line must be one whole JSON object"
        return bad_record(file, line, "not_json", message, data)
    if not isinstance(fields, dict):
        return bad_record(file, line, "not_object", f"not a JSON object, but {type(fields).__name__}", data)
    return parse_fields(file, line, fields, data)


def parse_fields(
    file: File, number: int, fields: Mapping[str, Any], data: bytes | None = None, *, unit: str = "line"
) -> Record | BadRecord:
    """The record that a line or row's fields make.

    Args:
        number: of the line or row, from 1.
        data: the line; None for a row, which is shown as its fields.
        unit: what `number` counts.
    """

    def bad(reason: str, error: ValueError) -> BadRecord:
        excerpt = str(fields).encode("utf-8", "backslashreplace") if data is None else data
        return bad_record(file, number, reason, str(error), excerpt, unit=unit)

    try:
        schema = _schema(tuple(fields))
    except ValueError as error:
        return bad("no_schema", error)
    record_id = f"{file.name}:{number}"
    try:
        group = _group(fields, record_id)
        return Record(record_id, file.source, group, file.split, schema.convert(fields))
    except ValueError as error:
        return bad("bad_field", error)


def _group(fields: Mapping[str, Any], record_id: str) -> str:
    group = fields.get("group")
    if group is None:
        return record_id
    if isinstance(group, int):  # a number names a group as well as a word does
        return str(group)
    return string_field(fields, "group")


@lru_cache(maxsize=16)
def _schema(names: tuple[str, ...]) -> Schema:
    """A file has few sets of names; of what holds very long ones, not many are kept."""
    return find_schema(names)


class _KeyTwiceError(Exception):
    def __str__(self) -> str:
        return repr(self.args[0])


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Programs differ in which of two values they take, so that a check may see one and a reader the other."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        raise _KeyTwiceError(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return fields


def _integer(digits: str) -> int | float:
    """Python refuses to read an integer of very many digits; no field that is read has one."""
    return int(digits) if len(digits) <= 1000 else float(digits)


def _depth(data: bytes) -> int:
    """How deep the objects and lists of a line are nested, at least where that is above DEEPEST."""
    if data.count(b"{") + data.count(b"[") <= DEEPEST:
        return 0
    signs = np.frombuffer(_NO_SIGNS.sub(b"", data), dtype=np.uint8)
    opened = (signs == ord("{")) | (signs == ord("["))
    return int(np.cumsum(np.where(opened, 1, -1)).max(initial=0))


# Possessive: no memory for each character. A string that does not end goes to the end, as for JSON, so that no `\"` of
# it is tried as the start of another
_NO_SIGNS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[^][{}"]++', re.DOTALL)
_DECODER = json.JSONDecoder(object_pairs_hook=_no_key_twice, parse_int=_integer)
