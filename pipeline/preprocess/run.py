"""Preprocess in three steps: annotate each shard, decide over all records, write each shard.

Annotating and writing prepare a shard's texts each for itself: doing it twice is cheaper than keeping a copy. What
goes between them is one short row per record. All keep what is done, so that a stopped stage goes on shard by shard.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.params import EMBEDDED, PreprocessParams
from pipeline.preprocess.annotate import Annotate, annotate
from pipeline.preprocess.decide import Decisions, decide
from pipeline.preprocess.fasttext_file import check_model
from pipeline.preprocess.near.minhash import MinHash
from pipeline.preprocess.prepare import Preparation
from pipeline.preprocess.statistics import statistics, write_statistics
from pipeline.preprocess.write import DROPPED, HITS, FileFigures, Write, write_shard
from pipeline.rules import with_rules
from pipeline.shards import Executor, Kept, run_shards, shard_names, verify_manifest, write_manifest
from pipeline.shards.tables import KINDS, columns, describe, join_tables, require_columns
from pipeline.work import WorkFolder, link_or_copy, publish_directory


def preprocess(source: Path, work: WorkFolder, params: PreprocessParams, *, executor: Executor) -> dict[str, float]:
    """Prepare, judge, deduplicate, split and mix what ingest wrote; `work.out` is described in data/README.md.

    Args:
        source: the directory that ingest wrote.
        params: the section `preprocess` of params.yaml.
        executor: where to run. The bytes do not depend on it.

    Returns:
        The totals, for the metrics.

    Raises:
        ValueError: `source` is not as ingest left it, a wanted split would be empty, or a parameter does not fit the
            data.
    """
    manifest = verify_manifest(source)
    shards = _shards(source, manifest, work, params)
    kept = Kept.of(work)
    annotated = run_shards(annotate, shards, title="preprocess: annotate", executor=executor, kept=kept)
    decisions = decide(shards, annotated, manifest.get("weights", {}), work, params, executor)
    jobs = [
        Write(
            *(shard.path, shard.kind, shard.preparation, table),
            *(decisions.contamination.shares(index), params.contamination_words),
            work.scratch / "shards" / shard.path.stem,
        )
        for index, (shard, table) in enumerate(zip(shards, decisions.tables, strict=True))
    ]
    written = run_shards(write_shard, jobs, title="preprocess: write", executor=executor, kept=kept)
    files = {
        f"{split}/{job.name}": figures
        for job, shard in zip(jobs, written, strict=True)
        for split, figures in shard.items()
    }
    facts = _facts(files, decisions)
    with publish_directory(work.out) as building:
        records = {name: figures.records for name, figures in files.items()}
        for job, shard in zip(jobs, written, strict=True):
            for split in shard:
                (building / split).mkdir(exist_ok=True)
                link_or_copy(job.folder / f"{split}.parquet", building / split / job.name)
        join_tables([job.folder / DROPPED for job in jobs], building / DROPPED)
        hits = [job.folder / HITS for job in jobs if job.shares]
        records |= {DROPPED: sum(facts["dropped"].values())} | decisions.contamination.write(building, hits)
        tables = statistics(shards, annotated, decisions)
        records |= write_statistics(tables, building / "statistics")
        write_manifest(building, records, facts)
    return _summary(facts)


def _shards(source: Path, manifest: dict[str, Any], work: WorkFolder, params: PreprocessParams) -> list[Annotate]:
    near = MinHash(params.near_words, params.near_bands, params.near_rows) if params.near_duplicates else None
    preparation = Preparation(with_rules(params.quality), tuple(params.pii))
    model = None if params.language_model == EMBEDDED else Path(params.language_model)
    if model:
        check_model(model)
    kinds = {name: name.partition("-")[0] for name in shard_names(manifest)}
    require_columns(source, kinds, split=True)
    paths = [(source / name, kind) for name, kind in kinds.items()]
    folder = work.scratch / "annotated"
    return [Annotate(path, kind, preparation, model, near, folder / path.stem) for path, kind in paths]


def _facts(files: dict[str, FileFigures], decisions: Decisions) -> dict[str, Any]:
    """The manifest's counts. What is written is what came in, less what was dropped, and the repeats."""
    ledger = decisions.ledger
    splits: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    for name, figures in sorted(files.items()):
        split, file = name.split("/")
        totals = splits[split].setdefault(file.partition("-")[0], {"records": 0, "characters": 0})
        totals["records"] += figures.records
        totals["characters"] += figures.characters
    counts, more = (np.zeros(size, dtype=np.int64) for size in (len(ledger.reasons), len(KINDS)))
    for rows in ledger.blocks():
        counts += np.bincount(ledger["reason"][rows], minlength=len(ledger.reasons))
        kept = rows[ledger["reason"][rows] == 0]
        np.add.at(more, ledger["kind"][kept], ledger["copies"][kept].astype(np.int64) - 1)
    dropped = {reason: int(count) for reason, count in zip(ledger.reasons[1:], counts[1:], strict=True) if count}
    repeated = dict(zip(KINDS, more.tolist(), strict=True))
    records_out = sum(figures.records for figures in files.values())
    balance = ledger.total + sum(repeated.values()) - sum(dropped.values())
    assert records_out == balance, "a record is written, as often as was decided, or dropped, once"
    return {
        "records_in": ledger.total,
        "repeated": repeated,
        "records_out": records_out,
        "dropped": dict(sorted(dropped.items())),
        "common_ngrams": decisions.contamination.common_ngrams,
        "splits": dict(splits),
        "schema": {kind: describe(columns(kind, split=False)) for kind in KINDS},
    }


def _summary(facts: dict[str, Any]) -> dict[str, float]:
    summary = {"records_in": facts["records_in"], "records_out": facts["records_out"]}
    summary |= {f"dropped/{reason}": count for reason, count in facts["dropped"].items()}
    for split, kinds in facts["splits"].items():
        summary |= {f"{split}/{kind}": totals["records"] for kind, totals in kinds.items()}
    return {name: float(value) for name, value in summary.items()}
