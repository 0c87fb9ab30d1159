"""What every stage's command shares: --help, params.yaml, one run at a time, tracking, log lines, errors for people."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping

from pipeline.params import Params, load_params
from pipeline.process import end_with_parent, only_one
from pipeline.tracking import Run, content_hashes, track


def stage(name: str, work: Callable[[Params, Run], None], doc: str | None) -> None:
    """Run `work(params, run)` as the command of stage `name`; a user's mistake ends in one line and exit status 1."""
    argparse.ArgumentParser(
        prog=f"python -m pipeline.{name}",
        description=doc,
        epilog="Its parameters are in params.yaml; `dvc repro` runs it when its dependencies change.",
    ).parse_args()
    end_with_parent()
    try:
        params = load_params()
        start = time.perf_counter()
        with only_one(name), track(name, params) as run:
            say(name, "start")
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


def report(name: str, run: Run, totals: Mapping[str, float]) -> None:
    """Hand a data stage's totals to the run and, line by line, to the log."""
    run.log_metrics(totals)
    for key, value in totals.items():
        say(name, f"{key} {value:,.10g}")
