"""MLflow servers to lose: a real one, one that hangs, one that answers 500; and what a store holds, all of it."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from pipeline.tracking.store import make_database


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RealServer:
    """`mlflow server` on a database in `folder`, always at the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> RealServer:
        store = f"sqlite:///{self.folder / 'server.db'}"
        make_database(store)
        command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        self._process = subprocess.Popen(
            [sys.executable, *command, "--backend-store-uri", store, "--artifacts-destination", self.folder / "files"],
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self._answers, 120)
        return self

    def kill(self) -> None:
        """As a crash would: at once, with all its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait(timeout=30)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
        except OSError:
            return False
        return True


@contextmanager
def hanging_server() -> Iterator[str]:
    """Takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def broken_server() -> Iterator[str]:
    """Answers 500 to whatever it is asked."""

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def all_runs(uri: str) -> list[Run]:
    assert not uri.startswith("sqlite") or Path(uri.removeprefix("sqlite:///")).exists(), "no database yet"
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, run_view_type=ViewType.ALL))


def parents(uri: str) -> dict[str, Run]:
    """The runs of executions, by key."""
    return {run.data.tags["execution"]: run for run in all_runs(uri) if "execution" in run.data.tags}


def children(uri: str, parent: Run) -> dict[str, Run]:
    """The runs of an execution's stages, by the stem of their log."""
    found = [run for run in all_runs(uri) if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return {run.data.tags["log"].rpartition("/")[2]: run for run in found}


def history(uri: str, run: Run, metric: str) -> list[tuple[int, float]]:
    """(Step, value) of each point, in the order of time."""
    points = MlflowClient(uri).get_metric_history(run.info.run_id, metric)
    return [(point.step, point.value) for point in sorted(points, key=lambda point: (point.timestamp, point.step))]


def contents(uri: str) -> dict[str, Any]:
    """Everything that the store holds about every run, down to the bytes of the artifacts."""
    client = MlflowClient(uri)
    return {run.info.run_id: _contents(client, run) for run in all_runs(uri)}


def _contents(client: MlflowClient, run: Run) -> dict[str, Any]:
    info = run.info
    histories = {
        key: sorted((p.step, p.timestamp, repr(p.value)) for p in client.get_metric_history(info.run_id, key))
        for key in run.data.metrics
    }
    return {
        "info": (info.experiment_id, info.run_name, info.status, info.start_time, info.end_time, info.lifecycle_stage),
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": histories,
        "inputs": [entry.to_dictionary() for entry in run.inputs.dataset_inputs],
        "artifacts": dict(_artifacts(client, info.run_id, "")),
    }


def _artifacts(client: MlflowClient, run: str, path: str) -> Iterator[tuple[str, str]]:
    for entry in client.list_artifacts(run, path or None):
        if entry.is_dir:
            yield from _artifacts(client, run, entry.path)
        else:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(client.download_artifacts(run, entry.path, folder))
                yield entry.path, hashlib.sha256(file.read_bytes()).hexdigest()


def wait_until(holds: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {holds}"
        time.sleep(0.1)
