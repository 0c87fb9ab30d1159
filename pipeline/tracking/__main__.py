"""Look at the runs so far: `ui` opens MLflow's pages on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pipeline.params import load_params
from pipeline.tracking.store import store_uri


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    ui = commands.add_parser("ui", help="serve MLflow's pages until Ctrl-C")
    ui.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    ui.add_argument("--port", type=int, default=5000)
    arguments = parser.parse_args()
    try:
        uri = store_uri(load_params().tracking)
    except ValueError as error:
        sys.exit(f"tracking: error: {error}")
    serve(uri, arguments.host, arguments.port)


def serve(uri: str, host: str, port: int) -> None:
    """Become MLflow's server in its light configuration: one worker, no job runner (2 processes instead of 15)."""
    if uri.startswith("http"):
        sys.exit(f"the runs are on a server of their own: open {uri}")
    Path("work").mkdir(exist_ok=True)
    print(f"MLflow on http://{host}:{port} in about ten seconds; Ctrl-C ends it", flush=True)
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    command = ["-m", "mlflow", "server", "--backend-store-uri", uri, "--host", host, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *command, "--workers", "1"])


if __name__ == "__main__":
    main()
