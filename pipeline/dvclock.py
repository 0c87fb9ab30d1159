"""What dvc.lock says of the last run of each stage, and params.yaml as DVC reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCK = "dvc.lock"
PARAMS = "params.yaml"


@dataclass(frozen=True)
class LockedStage:
    """A stage as it last ended well."""

    command: str
    deps: dict[str, str]
    """The md5 by path."""
    params: dict[str, Any]
    """The value of each section or full key."""
    outs: dict[str, str]


def read_lock(root: Path) -> dict[str, LockedStage]:
    """The stages of dvc.lock by name; none where there is no such file yet.

    Raises:
        ValueError: it cannot be read.
    """
    file = root / LOCK
    return parse_lock(file, file.read_bytes()) if file.exists() else {}


def parse_lock(file: Path, text: bytes) -> dict[str, LockedStage]:
    """The stages in the content of a dvc.lock; `file` is its name, for the message.

    Raises:
        ValueError: it is not what DVC writes.
    """
    try:
        content = parse_yaml(file, text)
        if content["schema"] is None:
            raise LookupError
        return {name: _locked(stage) for name, stage in content.get("stages", {}).items()}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = error if isinstance(error, ValueError) else f"{file}: not what DVC writes"
        raise ValueError(f"{reason}; `make repro` puts back what a kill cut off; or restore or delete it") from None


def read_yaml(file: Path) -> dict[str, Any]:
    """A file of YAML 1.2, which is what DVC reads: `1e-3` is a number and `off` a word."""
    return parse_yaml(file, file.read_bytes())


def parse_yaml(file: Path, text: bytes) -> dict[str, Any]:
    """The content of a YAML file; `file` is its name, for the message."""
    from ruamel.yaml import YAML, YAMLError

    try:
        content = YAML(typ="safe").load(text.decode())
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected sections, found {'nothing' if content is None else repr(content)}")
    return content


def _locked(stage: dict[str, Any]) -> LockedStage:
    command = stage["cmd"]
    if not isinstance(command, str | list):
        raise TypeError
    return LockedStage(
        command=command if isinstance(command, str) else "\n".join(command),
        deps=_hashes(stage.get("deps", [])),
        params=dict(stage.get("params", {}).get(PARAMS, {})),
        outs=_hashes(stage.get("outs", [])),
    )


def _hashes(entries: list[dict[str, Any]]) -> dict[str, str]:
    """Of what lies elsewhere DVC notes a checksum or an etag."""
    return {
        entry["path"]: next((entry[name] for name in ("md5", "checksum", "etag") if name in entry), "")
        for entry in entries
    }
