"""How far the logs of an execution have been delivered to one store."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class LogCursor:
    """Of one log: the MLflow run that it goes to, the byte behind the last event delivered, the status told."""

    run: str = ""
    offset: int = 0
    status: str = ""


@dataclass
class Cursor:
    """Of all logs of an execution.

    It is a hint, no more: MLflow's word on how many events it has counts (the tag `log.events`), and where the two
    differ all is delivered again from the start, which changes nothing that is there.
    """

    run: str = ""
    """The parent run."""
    experiment: str = ""
    """The id of its experiment, which somebody may give another name."""
    events: int = 0
    status: str = ""
    logs: dict[str, LogCursor] = field(default_factory=dict)
    """By the stem of the log."""
    cached: dict[str, str] = field(default_factory=dict)
    """Stage -> the run that made what this execution took from DVC's cache; "" while that is not known."""

    def of(self, log: Path) -> LogCursor:
        return self.logs.setdefault(log.stem, LogCursor())

    def save(self, folder: Path, store: str) -> None:
        path = _path(folder, store)
        path.parent.mkdir(exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)

    @classmethod
    def load(cls, folder: Path, store: str) -> Cursor:
        try:
            fields = json.loads(_path(folder, store).read_text())
            return cls(**fields | {"logs": {stem: LogCursor(**log) for stem, log in fields["logs"].items()}})
        except (OSError, ValueError, TypeError, KeyError):  # none, or cut off
            return cls()


def _path(folder: Path, store: str) -> Path:
    return folder / "delivered" / f"{store}.json"
