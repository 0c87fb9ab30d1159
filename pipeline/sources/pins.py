"""sources.lock.json: what each path outside the source's folder stood for when it was pinned.

    {"s3://bucket/*.jsonl": {"s3://bucket/a.jsonl": {"size": 12, "etag": "…"}}, "/archive": {…: {…, "sha256": "…"}}}

A pin has the tag that the store gives the object, else the hash of its bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.hashing import file_sha256
from pipeline.sources.files import File, unreadable
from pipeline.sources.remote import HOW_TO_PIN, changed, describe, is_uri, open_object
from pipeline.work.publish import write_whole

LOCK = "sources.lock.json"

Pins = dict[str, dict[str, dict[str, int | str]]]


def make_pin(location: str) -> dict[str, int | str]:
    """The pin of a file or object as it is now.

    Raises:
        ValueError: it cannot be read.
    """
    if not is_uri(location):
        return {"size": Path(location).stat().st_size, "sha256": file_sha256(Path(location))}
    size, etag = describe(location)
    return {"size": size, "etag": etag} if etag else {"size": size, "sha256": _sha256(location)}


def with_content(file: File) -> File:
    """The file with the hash of its bytes, by which what was made of it is found again; a store's tag does as well.

    Raises:
        ValueError: it is pinned, and gone or another.
    """
    if file.etag or (file.fault and not file.sha256):
        return file
    try:
        found = make_pin(file.location).get("sha256")
    except OSError as error:
        if not file.sha256:
            return replace(file, fault=unreadable(error))
        found = None
    if file.sha256 and found != file.sha256:
        raise ValueError(changed(file.location))
    return replace(file, sha256=str(found))


def changed_pins(files: Iterable[File]) -> list[str]:
    """Which local files that are pinned hold something else by now; only those with another time are read again."""
    return [file.location for file in files if file.sha256 and not is_uri(file.location) and not _is_pinned(file)]


def read_pins(folder: Path) -> Pins:
    """The pins beside the sources.yaml of `folder`; none where there is no lock.

    Raises:
        ValueError: the lock is malformed.
    """
    path = folder / LOCK
    if not path.is_file():
        return {}
    try:
        pins = json.loads(path.read_text(encoding="utf-8"))
        for objects in pins.values():
            for pin in objects.values():
                if not isinstance(pin["size"], int) or not isinstance(pin.get("etag", pin.get("sha256")), str):
                    raise ValueError("a pin has a size, and an etag or a sha256")
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is malformed ({error}): write it again, {HOW_TO_PIN}") from None
    return pins


def write_pins(folder: Path, pins: Pins) -> Path:
    """Write the lock whole or not at all."""
    write_whole(folder / LOCK, (json.dumps(pins, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())
    return folder / LOCK


def _is_pinned(file: File) -> bool:
    try:
        return file_sha256(Path(file.location)) == file.sha256
    except OSError:
        return False


def _sha256(uri: str) -> str:
    with open_object(uri, None) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
