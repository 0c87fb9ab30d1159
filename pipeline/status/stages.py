"""Where each stage stands: what dvc.lock says of it, and the work in progress on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

from pipeline.dvcfile import StageDefinition
from pipeline.dvclock import PARAMS, LockedStage, read_lock, read_yaml
from pipeline.status.changes import Change, changes
from pipeline.status.content import Contents
from pipeline.status.listings import Listings
from pipeline.status.memory import Memory
from pipeline.work import WorkState, list_work, portable_fingerprint

MEMORY = "status.json"


@dataclass(frozen=True)
class Standing:
    """All that is known of a stage."""

    name: str
    recorded: bool
    """Whether dvc.lock knows it: it ended well once."""
    changes: tuple[Change, ...]
    """What is not as dvc.lock says."""
    waits_for: tuple[str, ...]
    """Stages that it takes something from, and that are to run first."""
    awaited: frozenset[str]
    """What it takes from them."""
    work: WorkState | None
    """Work on exactly what it would make now."""

    @property
    def outdated(self) -> bool:
        """What `dvc status` lists."""
        return not self.recorded or bool(self.changes)

    @property
    def running(self) -> bool:
        return self.work is not None and self.work.state == "running"

    @property
    def fresh(self) -> bool:
        return not (self.outdated or self.waits_for or self.running)

    @property
    def reasons(self) -> list[Change]:
        """The changes, but for what is missing only until the stages before have run."""
        return [change for change in self.changes if change.missing not in self.awaited]

    @property
    def runs(self) -> bool:
        """Whether it has to run, whatever the stages before it make."""
        return not self.recorded or not all(change.restorable for change in self.reasons)

    @property
    def may_change(self) -> bool:
        """Whether what it makes may come out different."""
        return self.running or self.runs or bool(self.waits_for)


@dataclass(frozen=True)
class Project:
    """All stages in the order of dvc.yaml, and the work that none of them would take up now."""

    stages: tuple[Standing, ...]
    other_work: tuple[WorkState, ...]


def look(root: Path, work: Path, stages: Mapping[str, StageDefinition]) -> Project:
    """Compare the project in `root` with its dvc.lock and with the work in progress in `work`.

    Raises:
        ValueError: a file of the project cannot be read.
    """
    locked, params = read_lock(root), read_yaml(root / PARAMS)
    memory, listings = Memory(work / MEMORY), Listings(root, work)
    contents = Contents(root, memory)
    found = list_work(work)
    standings: dict[str, Standing] = {}
    for name, above in _upstream(stages).items():
        stage, lock = stages[name], locked.get(name)
        differences = changes(stage, lock, params, contents, listings) if lock else []
        waits_for = tuple(other for other in above if standings[other].may_change)
        awaited = frozenset(path for other in waits_for for path in _taken(stage, stages[other]))
        stale = not lock or bool(differences) or bool(waits_for)
        at_work = _work_on(stage, [state for state in found if stale or state.state == "running"], root)
        standing = Standing(name, bool(lock), tuple(differences), waits_for, awaited, at_work)
        standings[name] = standing
        if lock:
            _keep_unchanged(stage, lock, contents, listings)
    memory.save()
    shown = [standing.work for standing in standings.values() if not standing.fresh]
    return Project(tuple(standings[name] for name in stages), tuple(state for state in found if state not in shown))


def remember(name: str, root: Path, work: Path, stages: Mapping[str, StageDefinition]) -> None:
    """Keep what the directories hold that a stage reads and no stage made (code, your data), to name changes later.

    Called when the stage starts; what DVC then writes into dvc.lock is this.
    """
    memory, listings = Memory(work / MEMORY), Listings(root, work)
    contents = Contents(root, memory)
    made = {path for other in stages.values() for path in _taken(stages[name], other)}
    for path in stages[name].deps:
        if path not in made and (content := contents.of(path)):
            listings.keep(content)
    memory.save()


def _keep_unchanged(stage: StageDefinition, locked: LockedStage, contents: Contents, listings: Listings) -> None:
    for path in stage.deps:
        content = contents.of(path)
        if content and content.md5 == locked.deps.get(path):
            listings.keep(content)


def _work_on(stage: StageDefinition, found: list[WorkState], root: Path) -> WorkState | None:
    """The work of `stage` on its present data, parameters and code; what runs goes first, then what goes on."""
    candidates = [state for state in found if state.stage == stage.name]
    if not candidates:
        return None
    present = portable_fingerprint(stage, root)
    order = ("running", "interrupted", "finished")
    same = [state for state in candidates if state.portable == present]
    return min(same, key=lambda state: order.index(state.state), default=None)


def _upstream(stages: Mapping[str, StageDefinition]) -> dict[str, list[str]]:
    """For each stage those that make something that it reads, in an order in which they can run."""
    above = {name: [other.name for other in stages.values() if _taken(stage, other)] for name, stage in stages.items()}
    try:
        return {name: above[name] for name in TopologicalSorter(above).static_order()}
    except CycleError as error:
        raise ValueError(f"dvc.yaml: stages wait for each other: {' -> '.join(error.args[1])}") from None


def _taken(stage: StageDefinition, other: StageDefinition) -> list[str]:
    """The dependencies of `stage` that `other` makes, or makes a part of."""
    return [dep for dep in stage.deps if any(_overlap(dep, out) for out in (*other.outs, *other.uncached))]


def _overlap(one: str, other: str) -> bool:
    return PurePosixPath(one).is_relative_to(other) or PurePosixPath(other).is_relative_to(one)
