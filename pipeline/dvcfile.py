"""What dvc.yaml says of the stages, with the paths of params.yaml filled in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA_FOLDERS = ("data/", "artifacts/")


@dataclass(frozen=True)
class StageDefinition:
    """A stage of dvc.yaml; paths are as written there, `params` are sections or full keys of params.yaml."""

    name: str
    command: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]
    """Whatever the stage makes and DVC keeps: outs, metrics and plots."""
    uncached: tuple[str, ...]
    """Made too, but not kept: `cache: false`."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The dependencies that other stages made."""
        return tuple(path for path in self.deps if path.startswith(DATA_FOLDERS))


def read_params(root: Path = Path()) -> dict[str, Any]:
    """params.yaml as it stands, unchecked."""
    return _read_yaml(root / "params.yaml")


def param_values(keys: tuple[str, ...], params: dict[str, Any]) -> dict[str, Any]:
    """The value of each section or full key."""
    return {key: lookup(params, key) for key in keys}


def lookup(params: dict[str, Any], key: str) -> Any:
    """The value of a full key; None where there is none."""
    value: Any = params
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def read_stages(root: Path = Path()) -> dict[str, StageDefinition]:
    """The stages in the order of dvc.yaml."""
    params, loaded = read_params(root), _read_yaml(root / "dvc.yaml")["stages"]
    return {name: _definition(name, stage, params) for name, stage in loaded.items()}


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml  # takes a while, which worker processes do without

    loaded: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)  # 7 times as fast as Python
    return loaded


def _definition(name: str, stage: dict[str, Any], params: dict[str, Any]) -> StageDefinition:
    made: dict[str, dict[str, Any]] = {}
    for kind in ("outs", "metrics", "plots"):
        for entry in stage.get(kind, []):
            made |= entry if isinstance(entry, dict) else {entry: {}}
    return StageDefinition(
        name=name,
        command=stage["cmd"],
        deps=tuple(_filled(path, params) for path in stage.get("deps", ())),
        params=tuple(stage.get("params", ())),
        outs=tuple(path for path, flags in made.items() if flags.get("cache", True)),
        uncached=tuple(path for path, flags in made.items() if not flags.get("cache", True)),
    )


def _filled(path: str, params: dict[str, Any]) -> str:
    return re.sub(r"\$\{([\w.]+)\}", lambda found: str(lookup(params, found[1])), path)
