"""What a stage read and wrote, by content: the tags that tie a run to its data and weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml


def content_hashes(stage: str) -> dict[str, str]:
    """Path -> sha256 for each dependency and output of `stage` under data/ and artifacts/, as dvc.yaml lists them."""
    definition = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    paths = [path for path in definition["deps"] + definition["outs"] if path.startswith(("data/", "artifacts/"))]
    return {path: _sha256(Path(path)) for path in paths if Path(path).exists()}


def _sha256(path: Path) -> str:
    """Of a file; of a directory's manifest, which has the hash of each file; without one, of all its files."""
    manifest = path / "manifest.json"
    if manifest.is_file():
        path = manifest
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = (
        f"{_sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in sorted(path.rglob("*")) if file.is_file()
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()
