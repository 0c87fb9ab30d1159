"""MLflow's pages."""

from __future__ import annotations

import os
import sys

from pipeline.tracking.redact import redact
from pipeline.tracking.store import QUIET, is_database, is_server, make_database


def serve(uri: str, host: str, port: int) -> None:
    """Become MLflow's server in its light configuration: one worker, no job runner (2 processes instead of 15)."""
    if is_server(uri):
        sys.exit(f"the runs are on a server of their own: open {redact(uri)}")
    if not is_database(uri):
        sys.exit(
            f"tracking: error: {redact(uri)} is no server (http, https) nor a database (sqlite:///…, postgresql://…)"
        )
    print(f"MLflow on http://{host}:{port} in about ten seconds; Ctrl-C ends it", flush=True)
    make_database(uri)  # stages may be about to do the same
    os.environ.update(QUIET)
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri  # not in the command line, where everybody can read it
    command = ["-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, *command])
