"""What changed about a stage since dvc.lock was written; where nothing did, DVC calls it up to date."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.dvcfile import StageDefinition, lookup
from pipeline.dvclock import LockedStage
from pipeline.status.content import Content, Contents
from pipeline.status.listings import Listings

NAMED_FILES = 3
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Change:
    """One reason to run a stage again."""

    text: str
    missing: str | None = None
    """The path, when nothing is there any more."""
    restorable: bool = False
    """Whether DVC's cache has what is not there, so that it need not be made."""


def changes(
    stage: StageDefinition, locked: LockedStage, params: dict[str, Any], contents: Contents, listings: Listings
) -> list[Change]:
    """Every difference, in words: of the command, the parameters, what the stage reads and what it made.

    Args:
        params: params.yaml, read as DVC reads it.
    """
    found = []
    if stage.command != locked.command:
        found.append(Change(f"command {_shown(locked.command)} -> {_shown(stage.command)}"))
    for key in stage.params:
        found += map(Change, _of_value(key, locked.params.get(key), lookup(params, key)))
    for path in dict.fromkeys(stage.deps):
        found += _of_path(path, locked.deps.get(path), contents.of(path), listings)
    for path in (*stage.outs, *stage.uncached):
        found += _of_path(path, locked.outs.get(path), contents.of(path), listings)
    for path in stage.outs:
        found += _of_cache(path, locked.outs.get(path), contents.of(path), listings)
    return found


def _of_value(key: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**new, **old}:
            if old.get(name) != new.get(name):
                yield from _of_value(f"{key}.{name}", old.get(name), new.get(name))
    elif new is None:
        yield f"{key} is no longer in params.yaml"
    elif old is None:
        yield f"{key} is new"
    elif old != new:
        yield f"{key} {_shown(old)} -> {_shown(new)}"


def _of_path(path: str, old: str | None, new: Content | None, listings: Listings) -> Iterator[Change]:
    if new is None:
        restorable = old is not None and listings.in_cache(old)
        where = "; DVC's cache has it" if restorable else ""
        yield Change(f"{path} is missing{where}", missing=path, restorable=restorable)
    elif old is None:
        yield Change(f"{path} is new in dvc.yaml")
    elif old != new.md5:
        before = listings.files(old)
        if before is None or new.files is None:
            yield Change(f"{path} changed")
        else:
            yield from map(Change, _of_files(path, before, new.files))


def _of_cache(path: str, old: str | None, new: Content | None, listings: Listings) -> Iterator[Change]:
    if new and new.md5 == old and not listings.in_cache(old):
        yield Change(f"{path} is not in DVC's cache")


def _of_files(directory: str, old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    differing = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    named = differing if len(differing) <= NAMED_FILES + 1 else differing[:NAMED_FILES]
    for name in named:
        how = "added" if name not in old else "removed" if name not in new else "changed"
        yield f"{directory}/{name} {how}"
    if len(differing) > len(named):
        yield f"and {len(differing) - len(named)} more files in {directory}"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
