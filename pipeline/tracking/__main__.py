"""Look at the runs so far, and bring them over to MLflow: `ui` opens MLflow's pages on this machine, `sync` delivers
what an outage kept back, or what a machine without a network has logged."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.params import load_params
from pipeline.tracking.execution import events_root
from pipeline.tracking.store import store_uri


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    ui = commands.add_parser("ui", help="serve MLflow's pages until Ctrl-C")
    ui.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    ui.add_argument("--port", type=int, default=5000)
    sync = commands.add_parser("sync", help="deliver the event logs to MLflow; once delivered, again changes nothing")
    sync.add_argument(
        "folder",
        nargs="?",
        type=Path,
        help="event logs, brought from another machine, say (default: those of this repository)",
    )
    arguments = parser.parse_args()
    try:
        uri = store_uri(load_params().tracking)
        if arguments.command == "ui":
            from pipeline.tracking.ui import serve

            serve(uri, arguments.host, arguments.port)
        else:
            from pipeline.tracking.sync import sync as deliver

            deliver(arguments.folder or events_root(), uri)
    except ValueError as error:
        sys.exit(f"tracking: error: {error}")


if __name__ == "__main__":
    main()
