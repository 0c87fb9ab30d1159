"""What each stage cost, from the event logs: the run whose outputs are those that lie there now, and no other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.tracking.events import Event, first_event, read_events

Hashes = dict[str, str]
"""By path, the sha256 of what is there."""

SAMPLED_MEMORY = "system/process_memory_megabytes"


@dataclass(frozen=True)
class StageCost:
    """A run of a stage."""

    execution: str
    """As people read it."""
    seconds: float
    commit: str = ""
    dirty: bool = False
    """Whether tracked files differed from the commit."""
    tokens_per_second: float | None = None
    """Of training, padding included."""
    peak_memory_mb: float | None = None


def stage_costs(logs: Path, made: dict[str, Hashes]) -> dict[str, StageCost]:
    """By stage, the cost of the run that made `made[stage]`; a stage without such a run on record is left out.

    Args:
        logs: the folder with a folder per execution.
    """
    found = {stage: _maker(logs, stage, outs) for stage, outs in made.items()}
    return {stage: cost for stage, cost in found.items() if cost}


def cost_so_far(log: Path, now: float, peak_memory_mb: float) -> StageCost:
    """The cost of the run that is writing `log`."""
    start = next(read_events(log))
    return StageCost(_execution_name(log, start), now - start["time"], *_code(start), peak_memory_mb=peak_memory_mb)


def _maker(logs: Path, stage: str, outs: Hashes) -> StageCost | None:
    """The newest run of `stage` that computed `outs`, as far as its log names them; none that published them again."""
    found = chain(logs.glob(f"*/{stage}.jsonl"), logs.glob(f"*/{stage}-[0-9]*.jsonl"))
    for log in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        events = list(read_events(log))
        republished = any(event["kind"] == "republished" for event in events)
        if events and not republished and _finished(events[-1]) and _agree(outs, _values(events, "tags")):
            return _cost(log, events)
    return None


def _finished(last: Event) -> bool:
    return last["kind"] == "end" and last["status"] == "FINISHED"


def _agree(outs: Hashes, tags: Hashes) -> bool:
    named = outs.keys() & tags.keys()
    return bool(named) and all(outs[path] == tags[path] for path in named)


def _cost(log: Path, events: list[Event]) -> StageCost:
    start, end, metrics = events[0], events[-1], _values(events, "metrics")
    sampled = [event["values"][SAMPLED_MEMORY] for event in events if SAMPLED_MEMORY in event.get("values", {})]
    return StageCost(
        _execution_name(log, start),
        end["time"] - start["time"],
        *_code(start),
        tokens_per_second=metrics.get("tokens_per_second"),
        peak_memory_mb=metrics.get("peak_memory_mb", max(sampled) * 1e6 / 2**20 if sampled else None),
    )


def _execution_name(log: Path, start: Event) -> str:
    execution = first_event(log.with_name("execution.jsonl")) or start
    return str(execution.get("execution_name", start["execution"]))


def _code(start: Event) -> tuple[str, bool]:
    code = start.get("code", {})
    return code.get("commit", ""), code.get("dirty", False)


def _values(events: list[Event], kind: str) -> dict[str, Any]:
    """The last value of everything that the events of `kind` tell."""
    return {key: value for event in events if event["kind"] == kind for key, value in event["values"].items()}
