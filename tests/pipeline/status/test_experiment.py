"""In the temporary copy of the project where `dvc exp run --temp` runs, the verdicts are those of the copy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.project import ROOT

DVC_YAML = """
stages:
  bake: {cmd: cp wheat bread, deps: [wheat], params: [bake], outs: [bread]}
  look: {cmd: "python -P -m pipeline.status > seen", deps: [bread], params: [look], outs: [seen]}
"""


def test_a_stage_of_an_experiment_sees_the_experiment(tmp_path):
    for name, content in {
        "dvc.yaml": DVC_YAML,
        "params.yaml": "bake: {minutes: 40}\nlook: {closely: 1}\n",
        "wheat": "wheat",
        ".gitignore": "bread\nseen\nwork\n",
    }.items():
        (tmp_path / name).write_text(content)
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "dvc", "init", "--quiet")
    run(tmp_path, "dvc", "repro", "--quiet")
    assert (tmp_path / "seen").read_text().splitlines()[:2] == ["bake  fresh", "look  not run yet"]
    run(tmp_path, "git", "add", ".")
    run(tmp_path, "git", "commit", "--quiet", "--message", "baked")
    run(tmp_path, "dvc", "exp", "run", "--temp", "--name", "closer", "-S", "look.closely=2")
    run(tmp_path, "dvc", "exp", "apply", "closer")
    assert [line.strip() for line in (tmp_path / "seen").read_text().splitlines()[:3]] == [
        "bake  fresh",  # its output is in the cache that the copy is told of
        "look  stale",
        "look.closely 1 -> 2",
    ]


def run(project: Path, *command: str) -> None:
    author = {f"GIT_{who}_{what}": "t@example.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | author | {"PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
