"""Stages to track: real processes in a folder with this repository's params.yaml and dvc.yaml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.tracking.feeding import feeder_runs
from pipeline.tracking.logs import ExecutionLogs, find_executions
from tests.pipeline.tracking.servers import wait_until

ROOT = Path(__file__).parents[3]

PREAMBLE = """
import sys, time
from pathlib import Path
from pipeline.params import load_params
from pipeline.tracking import close_execution, open_execution, track
params = load_params()
"""

TRAIN = """
with track("base", params) as run:
    for step in range(40):
        run.log_metrics({"loss": 40.0 - step}, tokens=step * 512)
    run.log_metrics({"best/loss": 1.0}, tokens=39 * 512)
    run.log_tags({"artifacts/base/model": "abc"})
    Path("samples.txt").write_text("hello")
    run.log_artifact(Path("samples.txt"))
"""
"""A stage that logs some of everything."""

LOSSES = [(step * 512, 40.0 - step) for step in range(40)]


class Workplace:
    """A folder in which stages run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(ROOT / name, folder)
        (folder / "data/tokens").mkdir(parents=True)
        (folder / "data/tokens/manifest.json").write_text(
            '{"schema": {"documents": {"id": "String"}}, "rows": 3, "files": {}}'
        )

    def environment(self, uri: str = "", **more: str) -> dict[str, str]:
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "DVC", "PIPELINE"))
        }
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": uri}
        return inherited | own | more

    def start(self, code: str, uri: str = "", **environment: str) -> subprocess.Popen[str]:
        """Begin a process that runs `code`; what it prints can be read."""
        return subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code],
            cwd=self.folder,
            env=self.environment(uri, **environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, uri: str = "", **environment: str) -> str:
        """Run `code` to its end; returns what it printed to stderr. It must not fail."""
        process = self.start(code, uri, **environment)
        _, errors = process.communicate(timeout=60)  # a server that hangs would hold it up far longer
        assert process.returncode == 0, errors
        return errors

    def tracking(self, *arguments: str, uri: str = "") -> subprocess.CompletedProcess[str]:
        """`python -m pipeline.tracking ...`."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline.tracking", *arguments],
            cwd=self.folder,
            env=self.environment(uri),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def sync(self, *arguments: str, uri: str = "") -> str:
        done = self.tracking("sync", *arguments, uri=uri)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def uri(self) -> str:
        """The database that stages use when they are told of no other."""
        return f"sqlite:///{self.folder}/work/mlflow.db"

    @property
    def executions(self) -> list[ExecutionLogs]:
        return list(find_executions(self.folder / "work/events"))

    def wait_for_feeders(self, seconds: float = 20) -> None:
        """Until none is left; when the execution is over, that is a matter of seconds."""
        for logs in self.executions:
            wait_until(lambda folder=logs.folder: not feeder_runs(folder), seconds)
