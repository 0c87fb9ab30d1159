"""What every stage's command shares: --help, params.yaml, the tracked run, start and end lines, errors for people."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from pipeline.params import Params, load_params
from pipeline.tracking import Run, content_hashes, track


def stage(name: str, work: Callable[[Params, Run], None], doc: str | None) -> None:
    """Run `work(params, run)` as the command of stage `name`; a user's mistake ends in one line and exit status 1."""
    argparse.ArgumentParser(
        prog=f"python -m pipeline.{name}",
        description=doc,
        epilog="Its parameters are in params.yaml; `dvc repro` runs it when its dependencies change.",
    ).parse_args()
    try:
        params = load_params()
        say(name, "start")
        start = time.perf_counter()
        with track(name, params) as run:
            work(params, run)
            run.log_tags(content_hashes(name))
        say(name, f"done in {time.perf_counter() - start:.1f} s")
    except ValueError as error:
        sys.exit(f"{name}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted")


def say(name: str, message: str) -> None:
    """One line of a stage's log."""
    print(f"[{name}] {message}", flush=True)
