"""What every stage's command shares: --help, params.yaml, its work folder, tracking, log lines, errors for people."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.dvcfile import read_stages
from pipeline.params import Device, Params, load_params
from pipeline.process import Interrupted, end_with_parent, stop_on_signals
from pipeline.status.stages import remember
from pipeline.tracking import Run, content_hashes, track
from pipeline.work import WorkFolder, disk_trouble, keep_lock, locked, open_work, prune, prune_shards, work_root

Main = Callable[[Params, Run, WorkFolder], None]
"""Fills `work.out` with the stage's outputs; what it keeps in `work.scratch` is there again after a stop."""

LOCKS = Path("work/locks")
"""Of this directory, also where the work is another's: each has outputs of its own."""


def stage(name: str, target: str, main: Main, doc: str | None) -> None:
    """Run `main` as the command of stage `name` and publish what it made as `target`.

    A user's mistake ends in one line and exit status 1; Ctrl-C and SIGTERM in 130 and 143.
    """
    argparse.ArgumentParser(
        prog=f"python -m pipeline.{name}",
        description=doc,
        epilog="Its parameters are in params.yaml; `dvc repro` runs it when its dependencies change.",
    ).parse_args()
    stop_on_signals()
    try:
        end_with_parent()
        _run(name, Path(target), main)
    except ValueError as error:
        sys.exit(f"{name}: error: {error}")
    except Interrupted as stop:
        print(f"{name}: interrupted{stop}; `dvc repro` goes on", file=sys.stderr)
        sys.exit(stop.exit_status)
    except Exception as error:
        if (what := disk_trouble(error, Path(target).parent)) is None:
            raise
        sys.exit(f"{name}: error: {what}")


def _run(name: str, target: Path, main: Main) -> None:
    machine = _machine(name, load_params().launch.device)
    start = time.perf_counter()
    with (
        locked(LOCKS / name, lambda who: say(name, f"{who} runs {name} here; waiting for it to end")),
        open_work(name, machine, lambda line: say(name, line)) as work,
    ):
        params, stages = load_params(), read_stages()  # as the work folder has them: it was a wait, perhaps
        work.check_unchanged(name)
        keep_lock()
        with track(name, params) as run:
            remember(name, Path(), work_root(), stages)
            flow = f"{' '.join(stages[name].inputs) or params.ingest.source} -> {target}"
            if work.finished(lambda line: say(name, line)):
                say(name, f"{flow}: made already, from the same data, parameters and code; published again")
                run.replay(work.told)
            else:
                say(name, flow)
                try:
                    main(params, run, work)
                except ValueError:
                    work.check_unchanged(name)  # else a file that is rewritten looks like a bad one
                    raise
                work.finish(run.log_path)
            work.check_unchanged(name)
            work.publish(target)
            run.log_tags(content_hashes(name))
    say(name, f"done: {target} in {time.perf_counter() - start:.1f} s")
    prune(work_root())
    prune_shards(work_root())
    work.check_unchanged(name)  # as late as can be: DVC reads parameters, files and code when this process has ended


def _machine(name: str, device: Device) -> dict[str, Any]:
    """What of this machine decides the bits of a stage that computes with the model; nothing for the others."""
    if "model" not in read_stages()[name].deps:
        return {}
    from pipeline.training.device import what_decides_bits

    return what_decides_bits(device)


def say(name: str, message: str) -> None:
    """One line of a stage's log."""
    print(f"[{name}] {message}", flush=True)


def report(name: str, run: Run, totals: Mapping[str, float]) -> None:
    """Hand a data stage's totals to the run and, line by line, to the log."""
    run.log_metrics(totals)
    for key, value in totals.items():
        say(name, f"{key} {value:,.10g}")
