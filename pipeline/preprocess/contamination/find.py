"""Find the training records that share n-grams with an evaluation set, and drop those that share enough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipeline.params import EMBEDDED, PreprocessParams
from pipeline.preprocess.annotate import Annotate
from pipeline.preprocess.contamination.evaluation import Collect, choose, collect, collect_files
from pipeline.preprocess.contamination.lookup import merge
from pipeline.preprocess.contamination.scan import FOUND, Quote, Scan, quote, scan
from pipeline.preprocess.contamination.weigh import weigh
from pipeline.preprocess.ledger import CONTAMINATED, TRAIN, Ledger
from pipeline.shards import Executor, Kept, run_shards
from pipeline.work import WorkFolder, remove

HITS = pl.Schema(
    {
        "row": pl.Int64(),
        "id": pl.String(),
        "evaluation": pl.String(),
        "share": pl.Float64(),
        "ngrams": pl.Int64(),
        "ngram": pl.String(),
    }
)
"""A training and an evaluation record that share n-grams, as `weigh` has them; `ngram`, the words of the first."""


def find_hits(
    ledger: Ledger, shards: Sequence[Annotate], work: WorkFolder, params: PreprocessParams, executor: Executor
) -> pl.DataFrame:
    """Drop the records that stay for train and have `contamination_share` of the n-grams of a record of the held-out
    splits or `evaluation_sets`.

    Returns:
        All hits (`HITS`), `row` being the number of the record; none where decontamination is off.

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
    scans = [
        Scan(shard.path, shard.kind, shard.preparation, rows, evaluation, n, work.scratch / "found" / shard.path.stem)
        for shard, rows in train
    ]
    run_shards(scan, scans, title="preprocess: decontaminate", executor=executor, kept=kept)
    hits = _quoted(
        ledger, shards, scans, list(weigh(evaluation, [job.folder / FOUND for job in scans], n)), executor, kept
    )
    contaminated = hits.filter(pl.col("share") >= params.contamination_share)
    ledger.drop(contaminated["row"].unique().to_numpy(), CONTAMINATED)
    return hits


def _quoted(
    ledger: Ledger,
    shards: Sequence[Annotate],
    scans: Sequence[Scan],
    weighed: Sequence[pl.DataFrame],
    executor: Executor,
    kept: Kept,
) -> pl.DataFrame:
    """The hits with the words of each, their records numbered."""
    hit = [(scan, hits) for scan, hits in zip(scans, weighed, strict=True) if hits.height]
    quotes = [Quote(scan.path, scan.kind, scan.preparation, hits.select("row", "place"), scan.n) for scan, hits in hit]
    told = run_shards(quote, quotes, title="preprocess: contamination", executor=executor, kept=kept)
    starts = {shard.path: start for shard, start in zip(shards, ledger.starts, strict=True)}
    numbered = [
        hits.with_columns(quoted, row=pl.col("row") + starts[scan.path]).select(HITS.names())
        for (scan, hits), quoted in zip(hit, told, strict=True)
    ]
    return pl.concat([HITS.to_frame(), *numbered])


def _by_shard(ledger: Ledger, shards: Sequence[Annotate], *, training: bool) -> list[tuple[Annotate, str]]:
    """The shards that hold records that stay for train, or for another split, and which ones."""
    found = []
    for index, shard in enumerate(shards):
        own = ledger.shard(index)
        is_wanted = (ledger["reason"][own] == 0) & ((ledger["split"][own] == TRAIN) == training)
        if is_wanted.any():
            found.append((shard, choose(is_wanted)))
    return found
