"""Checkpoints of a training run that is under way: written beside training, whole or not at all, checked when read.

    step-00000120/state.pt       what training needs to go on to the same bits, as torch.save has it
    step-00000120/sha256.json    the seal
    latest                       a link to the newest that is complete

The two newest stay. A copy of the tensors is taken between two steps; a thread writes it while training goes on.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.work import DamagedError, check_seal, remove, seal

KEEP = 2
LARGEST_SHARE = 0.05
"""Of the time that may go into writing: a checkpoint that takes a minute is not written every minute."""


class Checkpoints:
    """The checkpoints below `folder`."""

    def __init__(self, folder: Path, every: float, written: Callable[[int], None] = lambda step: None) -> None:
        """
        Args:
            every: seconds from one checkpoint to the next.
            written: called from the thread with the step of each that is complete.
        """
        self._folder, self._every, self._written = folder, every, written
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._last = time.monotonic()
        self._took = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        for draft in folder.glob(".step-*.tmp"):
            remove(draft)

    def newest(self) -> dict[str, Any] | None:
        """The state of the newest checkpoint that is whole; None where there is none.

        A damaged one is named, removed, and skipped for the one before.
        """
        for path in self._newest_first():
            try:
                check_seal(path)
            except DamagedError as damage:
                print(f"warning: {damage}; this checkpoint is skipped for the one before", file=sys.stderr, flush=True)
                remove(path)
                continue
            state: dict[str, Any] = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
            return state
        return None

    def due(self) -> bool:
        """Whether it is time for a checkpoint and the one before has been written.

        Raises:
            Exception: what went wrong in writing the one before.
        """
        self._raise()
        if self._thread and self._thread.is_alive():
            return False
        return time.monotonic() - self._last >= max(self._every, self._took / LARGEST_SHARE)

    def save(self, step: int, state: dict[str, Any], unchanging: dict[str, Any]) -> None:
        """Start writing a checkpoint of both; `state` is copied first, `unchanging` is as it says."""
        self.wait()
        start = time.monotonic()
        copied = _copied(state) | unchanging
        self._thread = threading.Thread(target=self._write, args=(step, copied, start))
        self._thread.start()
        self._last = time.monotonic()

    def wait(self) -> None:
        """Until what was started is written.

        Raises:
            Exception: what went wrong in writing it.
        """
        if self._thread:
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error:
            raise self._error

    def _write(self, step: int, state: dict[str, Any], start: float) -> None:
        target = self._folder / f"step-{step:08d}"
        draft = self._folder / f".{target.name}.tmp"
        try:
            draft.mkdir()
            torch.save(state, draft / "state.pt")
            seal(draft)
            remove(target)
            draft.rename(target)
            self._point_at(target)
            for old in self._newest_first()[KEEP:]:
                remove(old)
            self._took = time.monotonic() - start
            self._written(step)
        except BaseException as error:  # the training thread raises it at its next call
            self._error = error
            remove(draft)

    def _point_at(self, target: Path) -> None:
        if not (self._folder / "latest").is_symlink():
            remove(self._folder / "latest")
        link = self._folder / ".latest.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
        os.replace(link, self._folder / "latest")

    def _newest_first(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"), reverse=True)


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value
