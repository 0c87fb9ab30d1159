"""Find the training records that share n-grams with an evaluation set, and drop those that share enough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipeline.params import EMBEDDED, PreprocessParams
from pipeline.preprocess.annotate import Annotate
from pipeline.preprocess.contamination.common import count_shared, set_aside
from pipeline.preprocess.contamination.evaluation import Collect, choose, collect, collect_files
from pipeline.preprocess.contamination.listing import COLUMNS, first_places, list_common, with_words
from pipeline.preprocess.contamination.lookup import merge
from pipeline.preprocess.contamination.results import NOTHING, Contamination
from pipeline.preprocess.contamination.scan import FOUND, Quote, Scan, quote, scan
from pipeline.preprocess.contamination.weigh import Weigh, weigh
from pipeline.preprocess.ledger import CONTAMINATED, TRAIN, Ledger
from pipeline.shards import Executor, Kept, run_shards
from pipeline.work import WorkFolder, remove


def find_contamination(
    ledger: Ledger, shards: Sequence[Annotate], work: WorkFolder, params: PreprocessParams, executor: Executor
) -> Contamination:
    """Drop the records that stay for train and have `contamination_share` of the n-grams of a record of the held-out
    splits or `evaluation_sets`. Nothing is looked for where decontamination is off.

    Raises:
        ValueError: a file of the evaluation sets is malformed, or they hold no text.
    """
    n = params.contamination_words
    if not n:
        return NOTHING
    kept, evaluation, common = Kept.of(work), work.scratch / "evaluation", work.scratch / "common"
    parts = _parts(ledger, shards, work, params, executor)
    for made in (evaluation, common):
        remove(made)
    merge(parts, evaluation)
    train = _by_shard(ledger, shards, training=True)
    scans = [
        Scan(shard.path, shard.kind, shard.preparation, rows, evaluation, n, work.scratch / "found" / shard.path.stem)
        for shard, rows in train.values()
    ]
    counts = run_shards(scan, scans, title="preprocess: decontaminate", executor=executor, kept=kept)
    hit = {index: job for index, job, count in zip(train, scans, counts, strict=True) if count}
    found, shared = [job.folder / FOUND for job in hit.values()], work.scratch / "shared.npy"
    count_shared(shared, evaluation, found)
    common_ngrams = set_aside(common, evaluation, shared)
    weighs = [
        Weigh(job.name, file, evaluation, common, n, work.scratch / "weighed" / job.path.stem)
        for job, file in zip(hit.values(), found, strict=True)
    ]
    pairs = run_shards(weigh, weighs, title="preprocess: contamination", executor=executor, kept=kept)
    contamination = Contamination(
        {index: job.folder for index, job, count in zip(hit, weighs, pairs, strict=True) if count},
        evaluation,
        params.contamination_share,
        sum(pairs),
        common_ngrams,
        _list_common(list(hit.values()), common, shared, executor, kept) if hit else COLUMNS.to_frame(),
    )
    for index in contamination.weighed:
        rows, _ = contamination.to_drop(range(index, index + 1), ledger.starts)
        ledger.drop(rows, CONTAMINATED)
    return contamination


def _list_common(scans: Sequence[Scan], common: Path, shared: Path, executor: Executor, kept: Kept) -> pl.DataFrame:
    """COLUMNS of what is left aside."""
    listed = list_common(common, scans[0].evaluation, shared)
    places = first_places(listed["ngram"].to_numpy(), [job.folder / FOUND for job in scans])
    quotes = [
        Quote(job.path, job.kind, job.preparation, places[index].select("row", "place"), job.n)
        for index, job in enumerate(scans)
        if index in places
    ]
    quoted = run_shards(quote, quotes, title="preprocess: in common use", executor=executor, kept=kept)
    return with_words(listed, places, quoted)


def _parts(
    ledger: Ledger, shards: Sequence[Annotate], work: WorkFolder, params: PreprocessParams, executor: Executor
) -> list[Path]:
    """The n-grams of the held-out records of each shard, and of each file of the evaluation sets."""
    n, parts = params.contamination_words, work.scratch / "ngrams"
    remove(parts)
    collects = [
        Collect(shard.path, shard.kind, shard.preparation, rows, n, parts / shard.path.stem)
        for shard, rows in _by_shard(ledger, shards, training=False).values()
    ]
    run_shards(collect, collects, title="preprocess: evaluation n-grams", executor=executor, kept=Kept.of(work))
    folders = [job.folder for job in collects]
    if params.evaluation_sets != EMBEDDED:
        folders += collect_files(Path(params.evaluation_sets), shards[0].preparation, n, parts / "files")
    return folders


def _by_shard(ledger: Ledger, shards: Sequence[Annotate], *, training: bool) -> dict[int, tuple[Annotate, str]]:
    """By their numbers, the shards that hold records that stay for train, or for another split, and which ones."""
    found = {}
    for index, shard in enumerate(shards):
        own = ledger.shard(index)
        is_wanted = (ledger["reason"][own] == 0) & ((ledger["split"][own] == TRAIN) == training)
        if is_wanted.any():
            found[index] = (shard, choose(is_wanted))
    return found
