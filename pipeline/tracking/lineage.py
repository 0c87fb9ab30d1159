"""What a run was made from: the code, the data, and what it wrote, by content."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.dvcfile import DATA_FOLDERS, read_stages
from pipeline.hashing import MANIFEST, content_sha256


def content_hashes(stage: str) -> dict[str, str]:
    """Path -> sha256 for each dependency and output of `stage` under data/ and artifacts/ that DVC keeps."""
    definition = read_stages()[stage]
    paths = [path for path in definition.deps + definition.outs if path.startswith(DATA_FOLDERS)]
    return {path: content_sha256(Path(path)) for path in paths if Path(path).exists()}


def code_facts() -> dict[str, Any]:
    """The commit that the code is of, and whether tracked files differ from it (dvc.lock, which DVC writes, aside)."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock")
    return {"commit": commit, "dirty": bool(changed)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@dataclass(frozen=True)
class Dataset:
    """What a stage reads, as MLflow's dataset inputs have it."""

    name: str
    source: str
    digest: str
    schema: Any
    profile: dict[str, Any]


def datasets(stage: str) -> Iterator[Dataset]:
    """The dependencies of `stage` under data/, where dvc.yaml has the stage."""
    try:
        definition = read_stages().get(stage)
    except FileNotFoundError:
        return
    for path in definition.deps if definition else ():
        if path.startswith("data/") and Path(path).exists():
            yield describe_dataset(path, Path(path))


def describe_dataset(name: str, path: Path) -> Dataset:
    """What the manifest of `path` says of it, its list of files left out; of other files, how large they are."""
    manifest = path / MANIFEST
    facts: dict[str, Any] = {}
    if manifest.is_file():
        facts = json.loads(manifest.read_text(encoding="utf-8"))
        facts.pop("files", None)
    elif path.is_file():
        facts = {"bytes": path.stat().st_size}
    return Dataset(
        name=name,
        source=path.as_posix(),
        digest=content_sha256(path),
        schema=facts.pop("schema", None),
        profile=facts,
    )
