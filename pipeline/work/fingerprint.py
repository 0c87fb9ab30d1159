"""What a stage's result depends on, as a hash: work in progress is gone on with only where it is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.dvcfile import StageDefinition, param_values, read_params
from pipeline.hashing import content_sha256, text_sha256

CODE = ("pipeline/", "model/")
LOCK = "requirements.lock"


def depends_on(stage: StageDefinition, root: Path = Path()) -> dict[str, Any]:
    """Content of every dependency of dvc.yaml (data, code, your files), and the stage's own parameters.

    What `launch` and `tracking` say is left out: it does not change what a stage makes.
    """
    return {
        "deps": {path: content_sha256(root / path) for path in sorted(stage.deps)},
        "params": param_values(stage.params, read_params(root)),
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The paths and full keys of parameters in which two answers of `depends_on` differ."""
    old, new = (_flat(answer["deps"]) | _flat(answer["params"]) for answer in (before, after))
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def code_digest(deps: dict[str, str], root: Path = Path()) -> str:
    """Of the code among the dependencies that `depends_on` has, and of the versions of the libraries."""
    code = {path: content for path, content in deps.items() if f"{path}/".startswith(CODE)}
    return digest(code | {LOCK: content_sha256(root / LOCK)})


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def digest(parts: Any) -> str:
    """A short name for any JSON value."""
    return text_sha256(json.dumps(parts, sort_keys=True))[:16]


def portable_fingerprint(stage: StageDefinition, root: Path = Path()) -> str:
    """The same on every machine."""
    return digest(depends_on(stage, root))
