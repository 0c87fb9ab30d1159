"""Which run made what a stage has: dvc.lock, noted in the log as it changes, tells the executions that share a result.

DVC writes a stage's entry to dvc.lock after the stage has ended, or when it takes the result from its cache. So an
execution that ran a stage and had entry E for it afterwards made E; one that ends with E and did not run the
stage took what the other made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.dvcfile import read_stages
from pipeline.dvclock import LOCK
from pipeline.hashing import text_sha256
from pipeline.params import flatten
from pipeline.tracking.events import Event, EventLog, last_event, read_events
from pipeline.tracking.logs import FINISHED, ExecutionLogs, find_executions, stage_of, stage_status


@dataclass(frozen=True)
class Maker:
    """The log of the stage's run that made a result."""

    logs: ExecutionLogs
    log: Path


def note_lock(logs: ExecutionLogs, *, final: bool = False) -> None:
    """Append a `lock` event if dvc.lock in the execution's workspace is not what the last one told.

    Args:
        final: the execution is over: append one in any case.
    """
    start = logs.start()
    assert start is not None
    facts = _read_lock(Path(start["workspace"]), start["params"])
    if facts is None or (not final and facts == {key: _last_lock(logs).get(key) for key in facts}):
        return
    log = EventLog(logs.own)
    log.append("lock", **facts, final=final)
    log.close()


def has_final_lock(logs: ExecutionLogs) -> bool:
    """Whether dvc.lock was noted after the last stage had ended, and DVC with it."""
    return bool(_last_lock(logs).get("final"))


def lock_facts(logs: ExecutionLogs) -> tuple[str, dict[str, str]]:
    """The hash of dvc.lock at the end, and of the entry of each stage that this execution has a result of."""
    last = _last_lock(logs)
    results = {stage for stage, has in _results(logs, last).items() if has}
    return last.get("sha256", ""), {stage: last["stages"][stage]["entry"] for stage in results}


def cached_stages(logs: ExecutionLogs) -> dict[str, str]:
    """Stage -> entry of what the execution ended with and did not make itself."""
    ran = set(last_runs(logs))
    return {stage: entry for stage, entry in lock_facts(logs)[1].items() if stage not in ran}


def makers(root: Path) -> dict[tuple[str, str], Maker]:
    """(Stage, entry) -> who made it first, of all executions in `root`."""
    found: dict[tuple[str, str], Maker] = {}
    for logs in find_executions(root):
        for stage, log in last_runs(logs).items():
            if stage_status(log) == FINISHED:
                for entry in _entries_after(logs, stage, (last_event(log) or {})["time"]):
                    found.setdefault((stage, entry), Maker(logs, log))
    return found


def _entries_after(logs: ExecutionLogs, stage: str, moment: float) -> Iterator[str]:
    for event in _locks(logs):
        if event["time"] > moment and stage in event["stages"]:
            yield event["stages"][stage]["entry"]


def last_runs(logs: ExecutionLogs) -> dict[str, Path]:
    """The last log of each stage that ran."""
    return {stage_of(path): path for path in logs.stages()}


def _results(logs: ExecutionLogs, lock: Event) -> dict[str, bool]:
    """Whether the execution came to have each stage of `lock`: ran it, or all before it without a failure."""
    ran = {stage: stage_status(log) == FINISHED for stage, log in last_runs(logs).items()}
    has: dict[str, bool] = {}

    def reached(stage: str) -> bool:
        if stage not in has:
            before = lock["stages"].get(stage)
            has[stage] = before is not None and ran.get(stage, True) and all(reached(name) for name in before["after"])
        return has[stage]

    for stage in lock.get("stages", {}):
        reached(stage)
    return has


def _locks(logs: ExecutionLogs) -> list[Event]:
    return [event for event in read_events(logs.own) if event["kind"] == "lock"]


def _last_lock(logs: ExecutionLogs) -> Event:
    return (_locks(logs) or [{}])[-1]


def _read_lock(workspace: Path, params: dict[str, Any]) -> dict[str, Any] | None:
    """The hash of dvc.lock and, for each stage whose entry fits the others and `params`, the hash of its entry.

    None where it cannot be read: the workspace is gone, or DVC is just writing.
    """
    try:
        text = (workspace / LOCK).read_text(encoding="utf-8")
        entries = yaml.safe_load(text)["stages"]
        stages = read_stages(workspace)
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None
    made = {out["path"]: (name, out.get("md5")) for name, entry in entries.items() for out in entry.get("outs", ())}
    facts: dict[str, Any] = {}
    for name in sorted(stages.keys() & entries.keys()):
        entry = entries[name]
        after = {made[dep["path"]] + (dep.get("md5"),) for dep in entry.get("deps", ()) if dep["path"] in made}
        fits = all(md5 == used for _, md5, used in after)
        values = flatten(entry.get("params", {}).get("params.yaml", {}))
        if fits and all(_same(params.get(key), value) for key, value in values.items()):
            kept = [out for out in entry.get("outs", ()) if out["path"] not in stages[name].uncached]
            facts[name] = {
                "entry": text_sha256(json.dumps(entry | {"outs": kept}, sort_keys=True)),
                "after": sorted({upstream for upstream, _, _ in after}),
            }
    return {"sha256": text_sha256(text), "stages": facts}


def _same(ours: Any, theirs: Any) -> bool:
    """YAML readers disagree on whether 1e-3 is a number."""
    if ours == theirs:
        return True
    try:
        return float(ours) == float(theirs)
    except (TypeError, ValueError):
        return False
