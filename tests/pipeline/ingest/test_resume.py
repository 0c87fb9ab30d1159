"""Killed at any moment, ingest goes on with what is left, to the bytes of a run that nothing stopped."""

import bz2
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl

from pipeline.ingest import run
from pipeline.shards import Local
from pipeline.work import WorkFolder
from tests.pipeline.ingest.stage import manifest, quarantining, write_jsonl

ROOT = Path(__file__).parents[3]
CODE = (
    "import sys; from pathlib import Path\n"
    "from pipeline.ingest import run; from pipeline.work import WorkFolder\n"
    "from pipeline.shards import Local\nfrom tests.pipeline.ingest.stage import quarantining\n"
    "if __name__ == '__main__':\n"
    "    run.ingest(WorkFolder(Path(sys.argv[2])), quarantining(Path(sys.argv[1]), 0.02), executor=Local(1))\n"
)


def _source(folder: Path) -> Path:
    rng = random.Random(0)
    lines = [{"text": "x" * rng.randrange(400)} if rng.random() < 0.95 else {"bad": 1} for _ in range(6000)]
    big = write_jsonl(folder / "a.jsonl", lines)
    (folder / "b.jsonl.bz2").write_bytes(bz2.compress(big.read_bytes()))
    pl.DataFrame({"text": ["y" * 300] * 3000}).write_parquet(folder / "c.parquet", row_group_size=100)
    return folder


def _bytes(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


def test_kills(tmp_path: Path) -> None:
    source = _source(tmp_path / "in")
    whole, work = WorkFolder(tmp_path / "whole"), WorkFolder(tmp_path / "work")
    run.ingest(whole, quarantining(source, 0.02), executor=Local(1))
    assert manifest(whole.out)["records_in"] == 15_000
    done = work.shards
    kept: dict[Path, int] = {}
    for more in (1, 20, 25):
        process = subprocess.Popen([sys.executable, "-c", CODE, str(source), str(work.path)], cwd=ROOT)
        while process.poll() is None and len(list(done.glob("[!.]*/result"))) < len(kept) + more:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was to be killed before its end"
        assert not work.out.exists()
        for path, time_ns in kept.items():
            assert path.stat().st_mtime_ns == time_ns, "what was done was not done again"
        kept = {path: path.stat().st_mtime_ns for path in done.glob("[!.]*/result")}
    run.ingest(work, quarantining(source, 0.02), executor=Local(2))
    assert _bytes(work.out) == _bytes(whole.out)
    for path, time_ns in kept.items():
        assert path.stat().st_mtime_ns == time_ns


def test_a_source_that_is_moved_is_not_read_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_jsonl(tmp_path / "in" / f"{name}.jsonl", [{"text": name}])
    work = WorkFolder(tmp_path / "work")
    run.ingest(work, quarantining(tmp_path / "in", 1e-6), executor=Local(1))
    kept = {path: path.stat().st_ino for path in work.shards.iterdir()}
    (tmp_path / "in").rename(tmp_path / "moved")
    run.ingest(work, quarantining(tmp_path / "moved", 1e-6), executor=Local(1))
    assert kept == {path: path.stat().st_ino for path in work.shards.iterdir()}
    assert len(kept) >= 2
