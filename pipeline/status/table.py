"""Where the stages stand, as a table for people."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import TextIO

from pipeline.status.stages import Project, Standing
from pipeline.work import WorkState

COLOURS = {"fresh": 32, "stale": 33, "running": 36, "interrupted": 35, "not run yet": 33}
DIM = 2


def render(project: Project, *, colour: bool) -> Iterator[str]:
    """The lines: a row for each stage with its reasons below it, older work, what to do next."""
    width = max(len(stage.name) for stage in project.stages)
    for stage in project.stages:
        state, note = _state(stage)
        painted = _painted(state, COLOURS[state], colour)
        yield f"{stage.name:<{width}}  {painted}{' ' * (max(map(len, COLOURS)) - len(state))}  {note}".rstrip()
        for reason in (*_reasons(stage, state), *_other_runs(stage, project.other_work)):
            yield f"{'':<{width}}    {_painted(reason, DIM, colour)}"
    yield ""
    if older := [state for state in project.other_work if state.state == "interrupted"]:
        runs = f"{len(older)} older interrupted {'run' if len(older) == 1 else 'runs'}"
        yield f"{runs} in work/, {sum(state.bytes for state in older) / 1e6:,.1f} MB: python -m pipeline.work"
    yield _next(project.stages)


def wants_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal, and its user has not asked for plain text (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _state(stage: Standing) -> tuple[str, str]:
    if stage.work and stage.running:
        return "running", _run(stage.work)
    if stage.fresh:
        return "fresh", ""
    if stage.work and stage.work.state == "interrupted":
        return "interrupted", f"{_progress(stage.work) or 'before the first step'}; `dvc repro` goes on from there"
    state = "stale" if stage.recorded else "not run yet"
    if stage.work:
        return state, f"but done in {stage.work.path}; `dvc repro` takes that"
    if stage.waits_for and stage.recorded:
        waits = f"waits for {_listed(stage.waits_for)}"
        return state, waits if stage.runs else f"{waits}; runs only if what comes from there is different"
    return state, ""


def _reasons(stage: Standing, state: str) -> Iterator[str]:
    """What changed; that a stage that has begun has not made its outputs yet is no news."""
    begun = state in ("running", "interrupted")
    yield from (change.text for change in stage.reasons if not (begun and change.missing))


def _other_runs(stage: Standing, work: Iterable[WorkState]) -> Iterator[str]:
    for state in work:
        if state.stage == stage.name and state.state == "running":
            yield f"running with other parameters, data or code: {_run(state)}"


def _run(state: WorkState) -> str:
    process = f"process {state.pid}{_since(state.pid)}" if state.pid else "a process that has just started"
    return ", ".join(filter(None, (process, _progress(state))))


def _progress(state: WorkState) -> str:
    if not state.total or state.done is None:
        return ""
    return f"at {state.unit} {state.done} of {state.total} ({state.done / state.total:.0%})"


def _since(pid: int) -> str:
    import psutil

    try:
        start = time.localtime(psutil.Process(pid).create_time())
    except psutil.Error:  # it has just ended, or is one of another machine
        return ""
    today = start[:3] == time.localtime()[:3]
    return time.strftime(" since %H:%M" if today else " since %d %b %H:%M", start)


def _next(stages: tuple[Standing, ...]) -> str:
    if running := [stage.name for stage in stages if stage.running]:
        return f"{_listed(running)} {'is' if len(running) == 1 else 'are'} running; nothing to do meanwhile"
    run = [stage.name for stage in stages if stage.runs]
    touched = [stage.name for stage in stages if stage.may_change and not stage.runs]
    missing = [change.missing for stage in stages if not stage.may_change for change in stage.changes if change.missing]
    steps = []
    if missing:
        steps.append(f"put back {_listed(dict.fromkeys(missing))} from its cache")
    if run:
        steps.append(f"run {_listed(run)}")
    if touched:
        steps.append(f"then what this changes of {_listed(touched)}")
    return f"next: `dvc repro` would {', '.join(steps)}" if steps else "nothing to do"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _painted(text: str, code: int, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text
