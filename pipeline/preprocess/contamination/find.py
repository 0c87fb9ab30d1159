"""Find and drop the training records that share an n-gram with an evaluation set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipeline.params import EMBEDDED, PreprocessParams
from pipeline.preprocess.annotate import Annotate
from pipeline.preprocess.contamination.evaluation import Collect, choose, collect, collect_files
from pipeline.preprocess.contamination.lookup import merge
from pipeline.preprocess.contamination.scan import HITS, Scan, scan
from pipeline.preprocess.ledger import CONTAMINATED, Ledger
from pipeline.preprocess.splitting import TRAIN
from pipeline.shards import Executor, Kept, run_shards
from pipeline.work import WorkFolder, remove


def find_hits(
    ledger: Ledger, shards: Sequence[Annotate], work: WorkFolder, params: PreprocessParams, executor: Executor
) -> pl.DataFrame:
    """Drop the records that stay for train and share an n-gram with the held-out splits or `evaluation_sets`.

    Returns:
        The hits (`scan.HITS`), `row` being the number of the record; none where decontamination is off.

    Raises:
        ValueError: a file of the evaluation sets is malformed, or they hold no text.
    """
    n = params.contamination_words
    if not n:
        return HITS.to_frame()
    held_out, train = (_by_shard(ledger, shards, training=training) for training in (False, True))
    parts = work.scratch / "ngrams"
    remove(parts)
    collects = [
        Collect(shard.path, shard.kind, shard.preparation, rows, n, parts / shard.path.stem) for shard, rows in held_out
    ]
    kept = Kept.of(work)
    run_shards(collect, collects, title="preprocess: evaluation n-grams", executor=executor, kept=kept)
    folders = [job.folder for job in collects]
    if params.evaluation_sets != EMBEDDED:
        folders += collect_files(Path(params.evaluation_sets), shards[0].preparation, n, parts / "files")
    evaluation = work.scratch / "evaluation"
    remove(evaluation)
    merge(folders, evaluation)
    scans = [Scan(shard.path, shard.kind, shard.preparation, rows, evaluation, n) for shard, rows in train]
    hit = run_shards(scan, scans, title="preprocess: decontaminate", executor=executor, kept=kept)
    starts = {shard.path: start for shard, start in zip(shards, ledger.starts, strict=True)}
    numbered = [hits.with_columns(pl.col("row") + starts[job.path]) for job, hits in zip(scans, hit, strict=True)]
    hits = pl.concat([HITS.to_frame(), *numbered])
    ledger.drop(hits["row"].unique().to_numpy(), CONTAMINATED)
    return hits


def _by_shard(ledger: Ledger, shards: Sequence[Annotate], *, training: bool) -> list[tuple[Annotate, str]]:
    """The shards that hold records that stay for train, or for another split, and which ones."""
    found = []
    for index, shard in enumerate(shards):
        own = ledger.shard(index)
        is_wanted = (ledger["reason"][own] == 0) & ((ledger["split"][own] == TRAIN) == training)
        if is_wanted.any():
            found.append((shard, choose(is_wanted)))
    return found
