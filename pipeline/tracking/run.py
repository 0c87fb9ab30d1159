"""A stage's run: what happens is written to the event log at once and handed to MLflow when the stage ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.params import Params, flatten
from pipeline.tracking.events import EventLog
from pipeline.tracking.execution import current_execution
from pipeline.tracking.store import store_uri

LOGS = Path("work/events")


class Run:
    """One stage's run. Metrics are logged against tokens seen where there are any, so that all runs compare."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def log_metrics(self, metrics: Mapping[str, float], tokens: int = 0) -> None:
        """Record numbers, at `tokens` tokens seen."""
        self._log.append("metrics", values=dict(metrics), tokens=tokens)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Record facts that are no parameters: hashes, versions, the policy that was applied."""
        self._log.append("tags", values=dict(tags))

    def log_artifact(self, path: Path) -> None:
        """Record a file, or every file of a directory, that people will want to look at."""
        self._log.append("artifact", path=str(path))


@contextmanager
def track(stage: str, params: Params) -> Iterator[Run]:
    """Open the run of `stage`; however the stage ends, the log says so and MLflow is told.

    Tracking never fails a stage: what MLflow does not take stays in the log.
    """
    execution = current_execution()
    log = EventLog(LOGS / execution.key / f"{stage}.jsonl")
    log.append("start", stage=stage, execution=execution.key, execution_name=execution.name, params=flatten(params))
    status = "FAILED"
    try:
        yield Run(log)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        log.append("end", status=status)
        log.close()
        _export(log.path, params)


def _export(path: Path, params: Params) -> None:
    try:
        from pipeline.tracking.mlflow_exporter import export

        export(path, store_uri(params.tracking), params.tracking.experiment)
    except Exception as error:  # an outage of MLflow must not fail a stage
        print(
            f"warning: MLflow did not take this run ({type(error).__name__}); it is kept in {path}",
            file=sys.stderr,
        )
