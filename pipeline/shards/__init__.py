"""One pure function per shard: run it over all shards, close their directory with a manifest.

`pipeline.shards.tables` (the tables that stages hand on) is imported by its own name: it needs Polars, and a
worker process sets Polars' thread count before it loads it.
"""

import atexit
import gc

from pipeline.shards.executors import Executor, Job, Local, Threads, executor_for
from pipeline.shards.kept import Kept
from pipeline.shards.manifest import read_manifest, reading_order, shard_names, verify_manifest, write_manifest
from pipeline.shards.run import run_shards

gc.set_threshold(100_000)  # to look through what is imported, again and again, takes a sixth of a stage's start
atexit.register(gc.freeze)  # and once more at its end, when all of it goes anyway

__all__ = [
    "Executor",
    "Job",
    "Kept",
    "Local",
    "Threads",
    "executor_for",
    "read_manifest",
    "reading_order",
    "run_shards",
    "shard_names",
    "verify_manifest",
    "write_manifest",
]
