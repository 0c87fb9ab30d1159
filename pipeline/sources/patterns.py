"""Paths and patterns of sources.yaml: what they match, and how a file is called below them."""

from __future__ import annotations

from fnmatch import fnmatchcase


def split_pattern(path: str) -> tuple[str, str]:
    """A path or URI, cut before the first of its names that has a wildcard; without one, all of it and nothing."""
    parts = path.split("/")
    fixed = next((index for index, part in enumerate(parts) if any(letter in part for letter in "*?[")), len(parts))
    return "/".join(parts[:fixed]), "/".join(parts[fixed:])


def matches(name: str, pattern: str) -> bool:
    """Whether a name, or a folder above it, is `pattern`; `*` stays within a folder's name, `**` does not."""
    if pattern == "." or name == pattern or name.startswith(f"{pattern}/"):
        return True
    return _match_parts(name.split("/"), pattern.split("/"))


def name_below(path: str, location: str) -> str:
    """How a file that a path, pattern or URI found is called below the part without wildcards; a file, by its name."""
    path, location = _without_scheme(path), _without_scheme(location)
    for base in (path, split_pattern(path)[0]):  # a name may hold what is a wildcard elsewhere
        start = f"{base.rstrip('/')}/" if base else ""
        if location != path and location.startswith(start):
            return location[len(start) :].lstrip("/")
    return location.rpartition("/")[2]


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder above it, begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def _without_scheme(path: str) -> str:
    """Stores differ in whether a slash comes before the first name."""
    scheme, mark, rest = path.partition("://")
    return rest.lstrip("/") if mark else scheme


def _match_parts(names: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return True
    if patterns[0] == "**":
        return any(_match_parts(names[skipped:], patterns[1:]) for skipped in range(len(names)))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _match_parts(names[1:], patterns[1:])
