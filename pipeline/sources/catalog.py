"""sources.yaml: the name of each source, where its files lie, the split that all of them belong to, its weight."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.sources.remote import is_uri
from pipeline.work.publish import write_whole

CATALOG = "sources.yaml"
INPUT = "input"
"""The name of the one source where nobody names any."""

HELD_OUT = ("validation", "test")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


class Source(NamedTuple):
    """An entry of sources.yaml."""

    name: str
    paths: tuple[str, ...]
    """As they are written: paths and patterns, relative to the folder or absolute, and URIs."""
    split: str | None
    weight: float | None
    """In the training text, which preprocess mixes."""


def read_catalog(path: Path) -> list[Source]:
    """The sources of a sources.yaml, in its order.

    Raises:
        ValueError: the file is malformed, the message names the entry; or it is not there.
    """
    import yaml  # these take a while, which worker processes do without
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))  # refuses a key twice
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}): write it as data/README.md says, or name paths after the folder"
        ) from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:  # whose message may have megabytes
        raise ValueError(f"{path}: not valid YAML: nested too deep, or within itself") from None
    except AssertionError:  # OmegaConf's, of a text or a number alone
        found = None
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: expected sources, each a name with its `path`; found none")
    return [_source(path, name, entry) for name, entry in found.items()]


def write_catalog(folder: Path, paths: Sequence[str]) -> None:
    """Write the sources.yaml of one source, `input`; `folder` is made if need be.

    Args:
        paths: as seen from here, paths and patterns, and URIs.

    Raises:
        ValueError: there is a sources.yaml, or `folder` is no folder's name.
    """
    if ":/" in str(folder) or set(str(folder)) & set("*?["):  # a URI's second slash is none in a Path
        raise ValueError(f"{folder} is no folder: the first argument is where sources.yaml is to be")
    if (folder / CATALOG).exists():
        raise ValueError(f"{folder / CATALOG} is there already: name {', '.join(paths)} in it yourself")
    folder.mkdir(parents=True, exist_ok=True)
    real = os.path.realpath(folder)  # as what the file names is found from
    seen = [path if is_uri(path) or os.path.isabs(path) else os.path.relpath(path, real) for path in paths]
    lines = [f"  - {json.dumps(path, ensure_ascii=False)}" for path in seen]  # JSON's texts are YAML's
    write_whole(folder / CATALOG, "\n".join([f"{INPUT}:", "  path:", *lines, ""]).encode())


def read_weights(source: Path) -> dict[str, float]:
    """The weights that the sources.yaml of a folder gives, by source; none where there is no such file.

    Raises:
        ValueError: the file is malformed.
    """
    if not (source / CATALOG).is_file():
        return {}
    return {each.name: float(each.weight) for each in read_catalog(source / CATALOG) if each.weight is not None}


def _source(path: Path, name: Any, entry: Any) -> Source:
    where = f"{path}: source {name!r}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{where}: a name has letters, digits, '.', '_' and '-'")
    if not isinstance(entry, dict) or "path" not in entry:
        raise ValueError(f"{where} must have a `path`: a path, a pattern or a URI, or a list of them")
    if unknown := sorted(map(str, entry.keys() - {"path", "split", "weight"})):
        raise ValueError(f"{where} has the unknown key {unknown[0]}; known are path, split and weight")
    paths = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
    if not paths or not all(isinstance(each, str) and each for each in paths):
        raise ValueError(f"{where}: path must be a text, or a list of texts; it is {entry['path']!r}")
    split = entry.get("split")
    if split is not None and split not in HELD_OUT:
        raise ValueError(f"{where}: split must be {' or '.join(HELD_OUT)}, or left out; it is {split!r}")
    weight = entry.get("weight")
    if weight is not None and not (type(weight) in (int, float) and 0 <= weight <= sys.float_info.max):
        raise ValueError(f"{where}: weight must be a finite number of at least 0, or left out; it is {weight!r}")
    return Source(name, tuple(paths), split, weight)
