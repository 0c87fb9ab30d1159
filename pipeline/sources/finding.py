"""Which files the sources are made of.

A file, or a folder anywhere below the input folder, or below a path that leads out of it, that is named `validation`
(or `valid`, `val`, `dev`) or `test` (also with numbers after it: `test-00.jsonl`, `validation-00000-of-00002.parquet`)
is that split. Of all others, preprocess decides; what sources.yaml says of a source comes before names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.sources.catalog import CATALOG, INPUT, Source, read_catalog
from pipeline.sources.files import EMPTY, File
from pipeline.sources.patterns import matches, name_below, split_pattern
from pipeline.sources.pins import LOCK, Pins, make_pin, read_pins
from pipeline.sources.remote import HOW_TO_PIN, find_objects, in_store, is_uri, without_file_scheme
from pipeline.sources.walking import Found, look, walk

NOT_DATA = {"README.md", CATALOG, LOCK}
"""At the top of a folder."""

_FIXES_SPLIT = re.compile(r"(?:(validation|valid|val|dev)|test)([-_.]\d+(-of-\d+)?)*", re.IGNORECASE)
_COMPRESSED = re.compile(r"\.(gz|zst|bz2)$", re.IGNORECASE)


def find_files(source: Path) -> list[File]:
    """The files of a file, or of a folder with or without a sources.yaml: in the order of its sources, then by name.

    What is outside the folder is as its lock has it: nothing is listed anew.

    Raises:
        ValueError: there is nothing there, sources.yaml or the lock is wrong, or a file belongs to no source or to two.
    """
    if os.path.isdir(source):
        found = [each for each in walk(source) if each.name not in NOT_DATA]
        if (source / CATALOG).is_file():
            return _of_catalog(source, found)
        return [_local(source, each, INPUT, fixed_split(each.name)) for each in found]
    if os.path.isfile(source):
        return [_local(source.parent, look(source, source.name), INPUT, None)]
    raise ValueError(f"ingest.source: {source} does not exist as a file or a folder; name one, or `embedded`")


def pin_outside(folder: Path) -> Pins:
    """The pins of all that the sources.yaml of `folder` names outside of it, as it is now.

    Raises:
        ValueError: sources.yaml is wrong, or something cannot be reached or read, or is not there.
    """
    pins: Pins = {}
    for source in read_catalog(folder / CATALOG):
        for path in source.paths:
            if _inside(folder, path) is None:
                where = without_file_scheme(path)
                locations = find_objects(where) if is_uri(where) else _local_objects(folder, where)
                if not locations:
                    raise ValueError(f"{folder / CATALOG}: source {source.name!r}: there is nothing at {path}")
                pins[path] = {location: make_pin(_there(folder, location)) for location in locations}
    return pins


def fixed_split(name: str) -> str | None:
    """The split that a file's name, relative to the source's folder, fixes: its own part, else the nearest folder."""
    *folders, file = name.split("/")
    for part in (Path(_COMPRESSED.sub("", file)).stem, *reversed(folders)):
        if match := _FIXES_SPLIT.fullmatch(part):
            return "validation" if match[1] else "test"
    return None


def _of_catalog(folder: Path, found: list[Found]) -> list[File]:
    pins, files = read_pins(folder), list[File]()
    for source in read_catalog(folder / CATALOG):
        mine: dict[str, File] = {}
        for path in source.paths:
            pattern = _inside(folder, path)
            there = list(
                _pinned(folder, source, path, pins) if pattern is None else _named(folder, source, pattern, found)
            )
            if not there:
                raise ValueError(f"{folder / CATALOG}: source {source.name!r}: there is no file at {path}")
            for file in there:
                place = _place(file.location)
                known = mine.get(place, file)
                first = known if pattern is None else file  # a name in the folder comes before a pinned spelling
                mine[place] = replace(first, split=file.split or known.split)  # held out by any of its paths
        files += sorted(mine.values(), key=lambda file: file.name)
    _require_one_owner(folder, files, found)
    return files


def _named(folder: Path, source: Source, pattern: str, found: Iterable[Found]) -> Iterator[File]:
    for each in found:
        if matches(each.name, pattern):
            yield _local(folder, each, source.name, source.split or fixed_split(each.name))


def _pinned(folder: Path, source: Source, path: str, pins: Pins) -> Iterator[File]:
    if path not in pins:
        raise ValueError(
            f"{folder / CATALOG}: source {source.name!r}: {path} lies outside {folder}/ and is not pinned in {LOCK}: "
            f"pin what is there now, {HOW_TO_PIN}"
        )
    where = None if source.split else in_store(without_file_scheme(path))
    for pinned, pin in sorted(pins[path].items()):
        location = without_file_scheme(pinned)
        split = source.split if where is None else fixed_split(name_below(where, in_store(location)))
        etag, sha256 = (str(pin[tag]) if tag in pin else None for tag in ("etag", "sha256"))
        fault = None if is_uri(location) or pin["size"] else EMPTY  # of an object, 0 may stand for an unknown size
        yield File(_there(folder, location), location, source.name, split, int(pin["size"]), etag, sha256, fault)


def _place(location: str) -> str:
    """The one spelling of a location; a link keeps its own name."""
    if is_uri(location):
        return location
    folder, name = os.path.split(location)
    return os.path.join(os.path.realpath(folder), name)


def _require_one_owner(folder: Path, files: list[File], found: list[Found]) -> None:
    owners: dict[str, str] = {}
    for file in files:
        real = file.location if is_uri(file.location) else os.path.realpath(file.location)
        if owners.setdefault(real, file.source) != file.source:
            raise ValueError(
                f"{folder / CATALOG}: {file.name} is in two sources, {owners[real]} and {file.source}; leave it in one"
            )
    named = {file.name for file in files}
    for each in found:
        if each.name not in named:
            why = each.fault.message if each.fault else f"is in no source of {CATALOG}: name it there or take it away"
            raise ValueError(f"{folder / each.name} {why}")


def _local(folder: Path, found: Found, source: str, split: str | None) -> File:
    return File(str(folder / found.name), found.name, source, split, found.size, fault=found.fault)


def _inside(folder: Path, path: str) -> str | None:
    """A path or pattern of sources.yaml relative to the folder, or None if it leads out of it."""
    path = without_file_scheme(path)
    if is_uri(path):
        return None
    relative = os.path.relpath(folder / path, folder)
    return None if relative.split(os.sep)[0] == ".." else relative.replace(os.sep, "/")


def _local_objects(folder: Path, path: str) -> list[str]:
    """The files that a path outside the folder names, written as it is."""
    base, pattern = (path, "") if os.path.lexists(folder / path) else split_pattern(path.rstrip("/"))
    if not base:
        raise ValueError(f"{folder / CATALOG}: {path}: name a folder before the first wildcard, all of / is too much")
    if not os.path.lexists(folder / base):
        return []
    if os.path.isdir(folder / base):
        found = [each for each in walk(folder / base) if matches(each.name, pattern or ".")]
    else:
        found = [look(folder / base, "")]
    for each in found:
        if each.fault and each.fault != EMPTY:  # which ingest counts
            raise ValueError(f"{folder / base / each.name} {each.fault.message}")
    return [f"{base}/{each.name}" if each.name else base for each in found]


def _there(folder: Path, location: str) -> str:
    return location if is_uri(location) else str(folder / location)
