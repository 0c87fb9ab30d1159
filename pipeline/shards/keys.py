"""What the result of a job depends on, as one hash: its function, the code, and all that the job holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pipeline.hashing import content_sha256, file_sha256, text_sha256
from pipeline.shards.threads import map_threads

NO_EFFECT = ("name", "folder")
"""Fields of a job that make no difference to its result: what an error calls it, and where the files go."""


def job_key(function: Callable[..., Any], code: str, job: Any) -> str:
    """The key of the result of `function(job)`.

    Of a file or directory that the job names, its content counts and not its path: a function that makes something
    of a name finds it in a field of its own. A field whose metadata has `in_key` False, of what the job holds, does
    not count.

    Args:
        code: stands for the code that `function` is made of.
        job: a dataclass.

    Raises:
        TypeError: a field holds something whose content is not known here.
        OSError: a file that the job names cannot be read.
    """
    held = {field.name: _content(getattr(job, field.name)) for field in fields(job) if field.name not in NO_EFFECT}
    parts = {"function": f"{function.__module__}.{function.__qualname__}", "code": code, "job": held}
    return text_sha256(json.dumps(parts, sort_keys=True))


def _content(value: Any) -> Any:
    """As a JSON value."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Enum():
            return value.name
        case Path():
            return {"sha256": content_sha256(value) if value.is_dir() else file_sha256(value)}
        case list() if value and all(isinstance(item, Path) for item in value):
            return map_threads(_content, value)
        case list() | tuple():
            return [_content(item) for item in value]
        case set() | frozenset():
            return sorted(_content(item) for item in value)
        case dict():
            return {str(key): _content(item) for key, item in value.items()}
    if is_dataclass(value):
        counted = [field.name for field in fields(value) if field.metadata.get("in_key", True)]
        held = {name: _content(getattr(value, name)) for name in counted}
        return {"type": type(value).__qualname__, **held}
    return {"sha256": hashlib.sha256(_table(value)).hexdigest()}


def _table(value: Any) -> bytes:
    import polars as pl  # a worker process sets Polars' thread count before it loads it

    frame = value.to_frame() if isinstance(value, pl.Series) else value
    if not isinstance(frame, pl.DataFrame):
        raise TypeError(f"{type(value).__name__} in a job: its content has no key")
    types = json.dumps({name: str(dtype) for name, dtype in frame.schema.items()})
    return f"{types}\n{frame.write_ndjson()}".encode()
