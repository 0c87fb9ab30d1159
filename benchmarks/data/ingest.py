"""How fast ingest reads one large file, and how much memory a process of it takes.

    python -m benchmarks.data.ingest [--mb 1000] [--workers 2]

The same generated records (English-like words, some with an escape) as JSON lines, plain, gzip and zstd, and as
Parquet of row groups of about 60 MB; each with shards of 4 and of 16 MB. MB are those of the JSON lines. The memory
is the high-water mark (VmHWM) of one process that runs every job itself; the speed is that of `--workers` processes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import machine
from pipeline.ingest.blocks import zstd
from pipeline.ingest.run import ingest
from pipeline.params import BadRecords, IngestParams
from pipeline.shards import Local
from pipeline.work import WorkFolder

SHARD_MB = (4, 16)


def main() -> None:
    """Print the table; in a process of its own (`--one`), measure one of its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", nargs=2, metavar=("FILE", "SHARD_MB"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        _measure(chosen.one[0], float(chosen.one[1]), chosen.workers)
        return
    print(machine())
    with tempfile.TemporaryDirectory(dir="work" if Path("work").is_dir() else None) as folder:
        files = generate(Path(folder), chosen.mb)
        megabytes = files[0].stat().st_size / 1e6
        print(f"{'file':16} {'MB':>6} {'shard_mb':>8} {'MB/s':>7} {'peak MB':>8}")
        for file in files:
            for shard_mb in SHARD_MB:
                seconds, _ = _one(file, shard_mb, chosen.workers)
                _, peak = _one(file, shard_mb, 1)
                size = file.stat().st_size / 1e6
                print(f"{file.name:16} {size:6.0f} {shard_mb:8} {megabytes / seconds:7.1f} {peak:8.0f}", flush=True)


def generate(folder: Path, megabytes: int) -> list[Path]:
    """The same records in every format."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randrange(2, 10))) for _ in range(5000)]
    plain = folder / "plain.jsonl"
    files = [plain, folder / "gzip.jsonl.gz", folder / "zstd.jsonl.zst", folder / "rows.parquet"]
    schema = pa.schema({"text": pa.string()})
    with (
        plain.open("wb") as lines,
        gzip.open(files[1], "wb", compresslevel=6) as gzipped,
        zstd.open(files[2], "wb") as zstandard,
        pq.ParquetWriter(files[3], schema) as parquet,
    ):
        while lines.tell() < megabytes * 1e6:
            texts = [" ".join(rng.choices(words, k=rng.randrange(20, 600))) + "\n" for _ in range(32_000)]
            block = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
            for stream in (lines, gzipped, zstandard):
                stream.write(block)
            parquet.write_table(pa.table({"text": texts}, schema), row_group_size=len(texts))
    return files


def _one(file: Path, shard_mb: float, workers: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.data.ingest", "--workers", str(workers)]
    done = subprocess.run([*command, "--one", str(file), str(shard_mb)], capture_output=True, text=True, check=True)
    seconds, peak = done.stdout.splitlines()[-1].split()
    return float(seconds), float(peak)


def _measure(file: str, shard_mb: float, workers: int) -> None:
    params = IngestParams(file, shard_mb, max_record_mb=8, max_expansion=200, bad_records=BadRecords.stop)
    with tempfile.TemporaryDirectory(dir=Path(file).parent) as folder:
        start = time.perf_counter()
        ingest(WorkFolder(Path(folder)), params, executor=Local(workers))
        seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(seconds, peak * 1024 / 1e6)


if __name__ == "__main__":
    main()
