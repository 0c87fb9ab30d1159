"""A user's own source: one file, or a directory that is walked in the order of the names.

- Left aside: hidden files and directories, and a README.md at the top of the directory. Any other file whose
  extension is unknown is an error: nothing is passed over in silence.
- In a directory, a file, or a directory at the top, that is named `validation` (or `valid`, `val`, `dev`) or `test`
  (also with numbers after it: `test-00.jsonl`, `validation-00000-of-00002.parquet`) is that split. Of all others,
  preprocess decides.
- `group` is a record's own field of that name; without one, each record is a group of its own. A text file is
  one document, and its own group.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pipeline.ingest.formats import FORMATS, File
from pipeline.ingest.pieces import Piece

_FIXES_SPLIT = re.compile(r"(?:(validation|valid|val|dev)|test)([-_.]\d+(-of-\d+)?)*", re.IGNORECASE)


def file_pieces(source: Path, shard_bytes: int) -> list[Piece]:
    """The pieces of a file or directory.

    Raises:
        ValueError: it does not exist, holds no data, or holds an empty file or one of unknown format.
    """
    if not source.exists():
        raise ValueError(f"ingest.source: {source} does not exist; name a file, a directory or `embedded`")
    if source.is_file():
        return _file_pieces(source.parent, source.name, None, shard_bytes)
    names = _walk(source)
    if not names:
        formats = ", ".join(FORMATS)
        raise ValueError(f"ingest.source: {source}/ holds no data; put files in it ({formats})")
    return [piece for name in names for piece in _file_pieces(source, name, fixed_split(name), shard_bytes)]


def fixed_split(name: str) -> str | None:
    """The split that a file's name, relative to the source, fixes."""
    top, *below = name.split("/")
    for part in (Path(below[-1] if below else top).stem, top if below else ""):
        if match := _FIXES_SPLIT.fullmatch(part):
            return "validation" if match[1] else "test"
    return None


def _walk(source: Path) -> list[str]:
    names = []
    for folder, folders, files in os.walk(source, followlinks=True):
        if Path(folder).resolve() in {parent.resolve() for parent in Path(folder).parents}:
            raise ValueError(f"{folder} is a link to a folder above it: take it away")
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [(Path(folder) / name).relative_to(source).as_posix() for name in files if not name.startswith(".")]
    return sorted(set(names) - {"README.md"})


def _file_pieces(root: Path, name: str, split: str | None, shard_bytes: int) -> list[Piece]:
    path = root / name
    cut = FORMATS.get(path.suffix.lower())
    if cut is None:
        raise ValueError(f"{path}: unknown format {path.suffix!r}; known are {', '.join(FORMATS)}")
    if not path.exists():
        raise ValueError(f"{path} is a broken link: mend it or take it away")
    pieces = list(cut(File(path, name, split), shard_bytes))
    if not any(piece.size for piece in pieces):
        raise ValueError(f"{path} is empty: fill it or take it away")
    return pieces
