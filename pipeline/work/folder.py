"""The folder of work in progress of one stage and one fingerprint: work/<stage>/<fingerprint>/.

about.json      what the fingerprint is made of
lock            held by the process that works here
progress.json   how far the work has come, for people
scratch/        what the stage keeps to go on from after a stop
done/out/       the finished outputs; done/sha256.json seals them
done/run.jsonl  what the run that made them told tracking
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.dvcfile import read_stages
from pipeline.work.fingerprint import code_digest, depends_on, differences, digest
from pipeline.work.lock import locked
from pipeline.work.publish import link_tree, publish_directory, write_whole
from pipeline.work.root import work_root
from pipeline.work.seal import SEAL, DamagedError, check_seal, seal
from pipeline.work.shards import SHARDS, forget_shards


class WorkFolder:
    """Where a stage works; the process that has it holds its lock."""

    def __init__(
        self, path: Path, changed: Callable[[], list[str]] = list, *, shards: Path | None = None, code: str = ""
    ) -> None:
        """`changed` names what is no longer as the fingerprint has it."""
        self.path = path
        self.shards = shards or path / "shards"
        """Results of single shards, which the work folders of the stage share."""
        self.code = code
        """The hash of the stage's code."""
        self._changed = [changed]
        self._since = time.time()
        self.scratch = path / "scratch"
        self.out = path / "done" / "out"
        self.told = path / "done" / "run.jsonl"

    def watch(self, changed: Callable[[], list[str]]) -> None:
        """Let `check_unchanged` ask for more than the fingerprint has: `changed` names what is another by then."""
        self._changed.append(changed)

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say how far the work that would survive a stop has come."""
        write_json(self.path / "progress.json", {"done": done, "total": total, "unit": unit})

    def finish(self, told: Path) -> None:
        """Close the outputs, which are complete, and drop what was kept to go on from.

        Args:
            told: the event log of the run that made them.
        """
        shutil.copyfile(told, self.told)
        seal(self.out.parent)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def finished(self, warn: Callable[[str], None]) -> bool:
        """Whether the outputs are there already, whole: made by a run that ended before DVC took note of it."""
        if not (self.out.parent / SEAL).exists():
            return False
        try:
            check_seal(self.out.parent)
        except DamagedError as damage:
            warn(f"warning: {damage}; made anew")
            shutil.rmtree(self.out.parent)
            return False
        shutil.rmtree(self.scratch, ignore_errors=True)
        return True

    def check_unchanged(self, stage: str) -> None:
        """Make sure that what is made here is what DVC will take it for: it looks at the dependencies afterwards.

        If it is not, the results of shards that were made meanwhile go: their keys name what was there before.

        Raises:
            ValueError: a parameter, a file or code of the stage has changed since the fingerprint was taken, or what
                is watched.
        """
        if names := [name for changed in self._changed for name in changed()]:
            forget_shards(self.shards, self._since)
            raise ValueError(
                f"{', '.join(names)} changed while {stage} ran; run `dvc repro` again for the present state"
            )

    def publish(self, target: Path) -> None:
        """Give the outputs their place; they stay here too, until they are pruned (DVC may die before it has them)."""
        with publish_directory(target) as building:
            link_tree(self.out, building)


@contextmanager
def open_work(stage: str, machine: dict[str, Any], say: Callable[[str], None]) -> Iterator[WorkFolder]:
    """The work folder of `stage` for the present data, parameters and code, held until the block ends.

    Args:
        machine: what of this machine decides the bits, too.
    """
    parts = depends_on(read_stages()[stage])
    about = {"portable": digest(parts), **parts, "machine": machine}
    folder = work_root() / stage / digest([about["portable"], about["machine"]])

    def wait(who: str) -> None:
        say(f"{who} works on the same in {folder}; waiting for it to end")

    with locked(folder, wait):
        write_json(folder / "about.json", about)
        yield WorkFolder(
            folder,
            lambda: differences(parts, depends_on(read_stages()[stage])),
            shards=work_root() / SHARDS / stage,
            code=code_digest(parts["deps"]),
        )


def write_json(path: Path, content: Any) -> None:
    """Write a small file whole or not at all."""
    write_whole(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
