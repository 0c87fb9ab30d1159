"""The manifest that closes a directory of shards: what is in it, written last, by an atomic rename.

    {"<fact>": ..., "files": {"documents-00000.parquet": {"records": 12, "sha256": "..."}}}

The files are in the order in which they are read. It holds nothing of the run that made it: no versions, times, hosts
or parameters.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.hashing import MANIFEST, file_sha256
from pipeline.shards.threads import map_threads

_SHARD = re.compile(r"[a-z]+-\d+\.parquet")
_NUMBER = re.compile(r"(?<=-)\d+(?=\.parquet$)")


def write_manifest(directory: Path, records: Mapping[str, int], facts: Mapping[str, Any]) -> None:
    """Close `directory`.

    Args:
        directory: it and all its files are complete.
        records: the number of records of each of its files, by the path in `directory` with forward slashes.
        facts: the rest of the manifest (counts, schema, ...), as JSON has it.
    """
    assert set(records) == _files(directory), "a manifest names each file of its directory"
    names = sorted(records, key=reading_order)
    sums = map_threads(lambda name: file_sha256(directory / name), names)
    files = {name: {"records": records[name], "sha256": found} for name, found in zip(names, sums, strict=True)}
    draft = directory / f".{MANIFEST}.tmp"
    draft.write_text(json.dumps({**facts, "files": files}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, directory / MANIFEST)


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of `directory`.

    Raises:
        ValueError: there is none, so the directory is missing or incomplete; or it is not one.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise ValueError(f"{path} is missing: the stage that writes {directory}/ has not finished; run `dvc repro`")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for file in manifest["files"].values():
            if not isinstance(file["records"], int) or not isinstance(file["sha256"], str):
                raise TypeError("records are a number, a sha256 is a text")
            if file["records"] < 0:
                raise ValueError("records are no less than 0")
    except OSError as error:
        raise ValueError(_unreadable(path, error)) from None
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is no manifest ({error!r}): remove {directory}/ and run `dvc repro`") from None
    return manifest


def verify_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of `directory`, after comparing every file with it.

    Raises:
        ValueError: the manifest is missing or not one, or a file is missing, changed, not in it or cannot be read.
    """
    manifest = read_manifest(directory)
    expected, found = manifest["files"], _files(directory)
    present = sorted(expected.keys() & found)
    try:
        sums = dict(zip(present, map_threads(lambda name: file_sha256(directory / name), present), strict=True))
    except OSError as error:
        raise ValueError(_unreadable(error.filename or directory, error)) from None
    for name in sorted(expected.keys() | found):
        if name not in found:
            problem = "is missing"
        elif name not in expected:
            problem = f"is not in {MANIFEST}"
        elif sums[name] != expected[name]["sha256"]:
            problem = f"differs from {MANIFEST}"
        else:
            continue
        raise ValueError(f"{directory / name} {problem}: remove {directory}/ and run `dvc repro`")
    return manifest


def reading_order(name: str) -> tuple[str, int, str]:
    """A key to sort the names of files by: shards by number, which has more digits than their names are wide from
    100,000 on."""
    number = _NUMBER.search(name)
    return (name[: number.start()], int(number[0]), name) if number else (name, -1, name)


def shard_names(manifest: Mapping[str, Any]) -> list[str]:
    """The shards among the files of what ingest wrote: those with a number."""
    return [name for name in manifest["files"] if _SHARD.fullmatch(name)]


def _unreadable(path: str | Path, error: OSError) -> str:
    return f"{path} cannot be read ({error.strerror}): make it readable, or remove it and run `dvc repro`"


def _files(directory: Path) -> set[str]:
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix() for path in paths} - {MANIFEST}
