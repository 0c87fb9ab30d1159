"""Event logs -> MLflow: a parent run per execution, a nested run per stage. The one place that writes to MLflow.

A delivery goes on where the last one ended; one that is repeated from the start changes nothing: runs are found
by their tags, MLflow drops a metric that it has (same key, step, time and value), and everything else is written over
with the same.
"""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from mlflow.entities import LifecycleStage, Run
from mlflow.tracking import MlflowClient

from pipeline.tracking.artifacts import folder_of
from pipeline.tracking.cached import Maker, cached_stages, last_runs, lock_facts, makers
from pipeline.tracking.cursor import Cursor, LogCursor
from pipeline.tracking.entries import log_dataset, log_metrics, log_params, log_tags, milliseconds
from pipeline.tracking.events import Event, first_event, last_event, read_events, read_from
from pipeline.tracking.logs import RUNNING, ExecutionLogs, stage_of, stage_status
from pipeline.tracking.runs import (
    DELETED,
    EVENTS,
    all_parents,
    find_child,
    find_children,
    find_experiment,
    find_parents,
    make_child,
    make_experiment,
    make_parent,
)
from pipeline.tracking.store import make_database, store_key

CHUNK = 2000
"""Events after which a long delivery notes how far it is."""


class Exporter:
    """Delivers the logs of executions to one store. Whatever MLflow raises comes out; nothing is lost by it."""

    def __init__(self, uri: str, progress: Callable[[], None] = lambda: None) -> None:
        """`progress` is called whenever MLflow has taken something."""
        make_database(uri)
        self._client = MlflowClient(tracking_uri=uri)
        self._store = store_key(uri)
        self._progress = progress
        self._confirmed: dict[Path, Cursor] = {}
        self._parents: dict[str, dict[str, list[Run]]] = {}
        self._makers: dict[tuple[str, str], Maker] | None = None

    def look_ahead(self, experiment: str) -> None:
        """Ask once for all executions that MLflow has, where many are about to be delivered."""
        found = find_experiment(self._client, experiment)
        self._parents[experiment] = all_parents(self._client, found) if found else {}

    def deliver(self, logs: ExecutionLogs) -> int | None:
        """Deliver what is new; returns the number of events, None where somebody has deleted the run in MLflow."""
        with (logs.folder / "delivery.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            cursor = self._confirmed.pop(logs.folder, None) or self._confirm(logs)
            if cursor is None:
                return None
            before = cursor.events
            for path in logs.all():
                self._deliver_log(logs, path, cursor)
            self._conclude(logs, cursor, news=cursor.events > before)
            self._confirmed[logs.folder] = cursor  # not reached if something is raised: then MLflow is asked again
            return cursor.events - before

    def _confirm(self, logs: ExecutionLogs) -> Cursor | None:
        """The cursor that MLflow agrees with; None if somebody has deleted the run there."""
        start = _first(logs.own)
        name, execution = start["experiment"], start["execution"]
        known = Cursor.load(logs.folder, self._store)
        parents = self._parents.get(name, {}).get(execution) or self._find_parents(name, known.experiment, execution)
        if not parents:
            return Cursor()
        parent, *spare = parents
        for run in spare:
            if EVENTS not in run.data.tags and run.info.lifecycle_stage != LifecycleStage.DELETED:
                self._client.delete_run(run.info.run_id)
        if parent.info.lifecycle_stage == LifecycleStage.DELETED:
            return None
        run, experiment = parent.info.run_id, parent.info.experiment_id
        if (known.run, known.experiment) == (run, experiment) and parent.data.tags.get(EVENTS) == str(known.events):
            return known
        children = find_children(self._client, experiment, run)
        return Cursor(run, experiment, logs={stem: LogCursor(child) for stem, child in children.items()})

    def _find_parents(self, name: str, known: str, execution: str) -> list[Run]:
        """The runs of an execution in the experiment of this `name`; in the one with the id `known`, renamed since."""
        for experiment in (find_experiment(self._client, name), known):
            if experiment and (found := find_parents(self._client, experiment, execution)):
                return found
        return []

    def _deliver_log(self, logs: ExecutionLogs, path: Path, cursor: Cursor) -> None:
        mine = cursor.of(path)
        status = "" if path == logs.own else stage_status(path)  # asked first: then all that led to it is read below
        events = read_from(path, mine.offset)
        while chunk := list(islice(events, CHUNK)):
            if not mine.run:
                mine.run = self._make_run(logs, path, cursor)
            if mine.run == DELETED:
                return
            self._write(path, mine.run, [event for event, _ in chunk])
            if path != logs.own:  # the parent shows what its stages came to, so that executions compare in one table
                metrics = [event for event, _ in chunk if event["kind"] == "metrics"]
                log_metrics(self._client, cursor.run, metrics, prefix=f"{stage_of(path)}/")
            mine.offset = chunk[-1][1]
            cursor.events += len(chunk)
            self._commit(logs, cursor)
        if status != mine.status:
            self._tell_status(mine.run, status, path)
            mine.status = status
            self._commit(logs, cursor)

    def _make_run(self, logs: ExecutionLogs, path: Path, cursor: Cursor) -> str:
        start = _first(logs.own)
        if path == logs.own:
            if not cursor.run:
                cursor.experiment = make_experiment(self._client, start["experiment"])
                cursor.run = make_parent(self._client, cursor.experiment, start)
            return cursor.run
        experiment, execution = cursor.experiment, start["execution"]
        found = find_child(self._client, experiment, execution, path.stem)  # an answer of MLflow may have got lost
        return found or make_child(self._client, experiment, cursor.run, path.stem, _first(path))

    def _write(self, path: Path, run: str, events: list[Event]) -> None:
        log_metrics(self._client, run, [event for event in events if event["kind"] in ("metrics", "system")])
        tags: dict[str, str] = {}
        for event in events:
            match event["kind"]:
                case "start":
                    log_params(self._client, run, event["params"])
                case "tags":
                    tags |= event["values"]
                case "artifact":
                    self._upload(run, folder_of(path) / event["name"])
                case "dataset":
                    log_dataset(self._client, run, event)
                case "end" if event.get("error"):
                    tags["error"] = event["error"]
        log_tags(self._client, run, tags)

    def _upload(self, run: str, path: Path) -> None:
        if not path.exists():
            print(f"warning: {path} is gone and not brought over", file=sys.stderr)
        elif path.is_dir():
            self._client.log_artifacts(run, str(path), artifact_path=path.name)
        else:
            self._client.log_artifact(run, str(path))
        self._progress()

    def _tell_status(self, run: str, status: str, *logs: Path) -> None:
        if status == RUNNING:
            self._client.update_run(run, RUNNING)
            return
        ended = max(event["time"] for path in logs if (event := last_event(path)))
        self._client.set_terminated(run, status, end_time=milliseconds(ended))

    def _conclude(self, logs: ExecutionLogs, cursor: Cursor, news: bool) -> None:
        """Tell how the execution stands; when it is over, also what its stages have made and taken from the cache."""
        status = logs.status()
        if status == cursor.status == RUNNING:
            return
        news = news or status != cursor.status
        if status != RUNNING:
            news = self._link_cached(logs, cursor, news)
        if not news:
            return
        if status != RUNNING:
            lock, entries = lock_facts(logs)
            log_tags(self._client, cursor.run, {"dvc.lock": lock} if lock else {})
            for stage, log in last_runs(logs).items():
                if stage in entries and cursor.of(log).run != DELETED:
                    log_tags(self._client, cursor.of(log).run, {"dvc.stage": entries[stage]})
        self._tell_status(cursor.run, status, *logs.all())
        cursor.status = status
        self._commit(logs, cursor)

    def _link_cached(self, logs: ExecutionLogs, cursor: Cursor, news: bool) -> bool:
        """Link the stages that are not linked yet; whether there is `news` now."""
        if not news and "" not in cursor.cached.values():
            return False
        for stage, entry in cached_stages(logs).items():
            if not cursor.cached.get(stage):
                cursor.cached[stage] = self._link(logs, cursor.run, stage, entry)
                news = news or cursor.cached[stage] != ""
        return news

    def _link(self, logs: ExecutionLogs, run: str, stage: str, entry: str) -> str:
        """Show in an execution's run what another made of `stage`; returns that one's run, "" if it is not known."""
        if self._makers is None:
            self._makers = makers(logs.folder.parent)
        maker = self._makers.get((stage, entry))
        if maker is None:
            return ""
        start = _first(maker.logs.own)
        known = Cursor.load(maker.logs.folder, self._store).experiment
        experiment = known or find_experiment(self._client, start["experiment"])
        found = find_child(self._client, experiment, start["execution"], maker.log.stem) if experiment else None
        if found is None or found == DELETED:
            return ""
        last = {key: event for event in read_events(maker.log) if event["kind"] == "metrics" for key in event["values"]}
        finals = [event | {"values": {key: event["values"][key]}} for key, event in last.items()]
        log_metrics(self._client, run, finals, prefix=f"{stage}/")
        log_tags(self._client, run, {f"cached/{stage}": found, f"cached/{stage}/from": start["execution_name"]})
        return found

    def _commit(self, logs: ExecutionLogs, cursor: Cursor) -> None:
        """MLflow first: where it has more than the cursor tells, all is delivered again, and no harm done."""
        self._client.set_tag(cursor.run, EVENTS, str(cursor.events))
        cursor.save(logs.folder, self._store)
        self._progress()


def _first(log: Path) -> Event:
    event = first_event(log)
    assert event is not None, log
    return event
