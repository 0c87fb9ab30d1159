"""A clean checkout of this working tree in a directory of its own, to run the real pipeline in."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]

STAGES = ["ingest", "preprocess", "tokenize", "base", "finetune", "evaluate", "export"]

SMALL = {
    "preprocess.validation_fraction": 0.1,
    "preprocess.test_fraction": 0.1,
    "tokenize.vocab_size": 512,
    "tokenize.seqlen": 128,
    "model.pattern": "M*-",
    "model.d_model": 32,
    "model.d_state": 16,
    "model.headdim": 16,
    "model.n_heads": 2,
    "model.n_kv_heads": 1,
    "model.d_ff": 64,
    "base.budget": 6,
    "base.batch_size": 4,
    "base.micro_batch_size": 2,
    "base.validate_every": 3,
    "base.validation_rows": 8,
    "finetune.budget": 4,
    "finetune.batch_size": 4,
    "finetune.micro_batch_size": 4,
    "finetune.validate_every": 2,
    "finetune.validation_rows": 8,
    "evaluate.samples": 2,
    "evaluate.max_new_tokens": 8,
}
"""Parameters that make every stage do all it does, in seconds."""


class Project:
    """A git repository with this tree's files as its only commit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, path / name)
        self.git("init", "--quiet")
        self.commit("tree")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.path, capture_output=True, text=True, check=True)
        return done.stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "--quiet", "--message", message)

    def set(self, **values: Any) -> None:
        """Change parameters; `finetune__lr=1` sets finetune.lr."""
        self.set_all({name.replace("__", "."): value for name, value in values.items()})

    def set_all(self, values: dict[str, Any]) -> None:
        """Change parameters by their full keys."""
        file = self.path / "params.yaml"
        params = yaml.safe_load(file.read_text())
        for key, value in values.items():
            section, name = key.split(".")
            assert name in params[section], key
            params[section][name] = value
        file.write_text(yaml.safe_dump(params, sort_keys=False))

    def surroundings(self) -> dict[str, Any]:
        """Where a command runs: this checkout, with the programs that the tests run with."""
        left_out = ("MLFLOW", "DVC", "PYTHONDONTWRITEBYTECODE")  # the last would compile our modules in every process
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {"cwd": self.path, "env": inherited | {"PATH": path}}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(command, **self.surroundings(), capture_output=True, text=True)

    def repro(self) -> list[str]:
        """`dvc repro`: the stages that ran."""
        done = self.run("dvc", "repro")
        assert done.returncode == 0, done.stdout + done.stderr
        return re.findall(r"Running stage '(\w+)'", done.stdout)

    def read(self, name: str) -> Any:
        """A JSON output."""
        return json.loads((self.path / name).read_text())

    def hashes(self, *folders: str) -> dict[str, str]:
        """The sha256 of every file under the folders, by its path in the project."""
        files = sorted(file for folder in folders for file in (self.path / folder).rglob("*") if file.is_file())
        assert files, folders
        return {str(file.relative_to(self.path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def write_jsonl(path: Path, count: int = 60, seed: int = 0) -> None:
    """Own data: short documents, and questions with answers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = [
        "state",
        "space",
        "models",
        "carry",
        "what",
        "they",
        "saw",
        "along",
        "in",
        "one",
        "small",
        "matrix",
        "forever",
    ]
    with path.open("w") as file:
        for index in range(count):
            text = " ".join(words[(seed + index * 7 + step * (index % 5 + 1)) % len(words)] for step in range(40))
            file.write(json.dumps({"text": f"{index} {text}"}) + "\n")
            question = f"What comes after {words[index % len(words)]} number {index}?"
            file.write(
                json.dumps({"prompt": question, "completion": f"{words[(index + 1) % len(words)]}, then more."}) + "\n"
            )
