"""Whether processes start before there is a tokenizer."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.tokenize.encoding import ENCODED_MEANWHILE, get_ready


class Noting:
    """An executor that notes what it is to get ready for."""

    here = 2

    def __init__(self) -> None:
        self.started: list[tuple[int, str]] = []

    def start(self, jobs: int, module: str) -> None:
        self.started.append((jobs, module))

    def run(self, function: Any, jobs: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
        raise AssertionError("nothing runs")


@pytest.mark.parametrize(("size", "started"), [(0, []), (1, [(2, "pipeline.tokenize.encode")])])
def test_processes_start_for_shards_that_they_will_encode(tmp_path: Path, size: int, started: list[Any]) -> None:
    """Of fewer bytes the stage's own process makes short work. A shard's splits are one job."""
    shards = [tmp_path / name for name in ("train/a", "train/b", "validation/a")]
    for shard, length in zip(shards, (ENCODED_MEANWHILE, size, 0), strict=True):
        shard.parent.mkdir(exist_ok=True)
        with shard.open("wb") as file:
            file.truncate(length)
    executor = Noting()
    get_ready(shards, executor)
    assert executor.started == started
