"""The second step: what becomes of each record, decided over all of them.

Own faults, exact duplicates, near duplicates, splits, contamination, mixing: in this order, and each sees only what
those before it leave. What is decided of a shard is written to a table of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.arrays import I64
from pipeline.preprocess.annotate import BANDS, CONTENTS, GROUPS, Annotate, Annotated
from pipeline.preprocess.causes import Causes
from pipeline.preprocess.components import flatten, unite
from pipeline.preprocess.contamination.find import find_contamination
from pipeline.preprocess.contamination.results import Contamination
from pipeline.preprocess.duplicates import cluster_sizes, deduplicate
from pipeline.preprocess.hashes import string_hashes
from pipeline.preprocess.ledger import CONTAMINATED, FREE, MOST_SOURCES, SPLIT_CODES, Ledger
from pipeline.preprocess.mixing import MIXED_OUT, Mixture, mix_sources
from pipeline.preprocess.reasons import own_reasons
from pipeline.preprocess.records import read_records, runs_of_shards
from pipeline.preprocess.runs import PAIRS, match, matches
from pipeline.preprocess.splitting import GROUP_OF_HELD_OUT, assign_splits, require_splits
from pipeline.shards import Executor, Kept, run_shards
from pipeline.shards.tables import KINDS, write_table
from pipeline.shards.threads import map_threads
from pipeline.work import WorkFolder

if TYPE_CHECKING:
    from pipeline.params import PreprocessParams

Pairs = Callable[[str, Path], list[Path]]
"""Given the name of the shards' runs, and the file of which records take part: files of pairs that share a name."""

TYING, DISTINCT = "tying", "distinct"
"""Columns: which records stay before duplicates are dropped, and before near ones are."""

ClusterSizes = dict[str, dict[int, int]]
"""Of `exact` and `near` duplicates: how many clusters there are of each size."""


@dataclass(frozen=True)
class Decisions:
    """What was decided."""

    ledger: Ledger
    sources: list[str]
    tables: list[Path]
    """For each shard, a row per record: `split`, `copies`, `reason`, `detail`."""
    clusters: ClusterSizes
    contamination: Contamination
    mixtures: list[Mixture]


def decide(
    shards: Sequence[Annotate],
    annotated: Sequence[Annotated],
    weights: Mapping[str, float],
    work: WorkFolder,
    params: PreprocessParams,
    executor: Executor,
) -> Decisions:
    """Decide over all records of the annotated shards.

    Args:
        weights: of sources, by name, which those of `params` come before.

    Raises:
        ValueError: a wanted split would be empty, an unknown source has a weight, an evaluation set is malformed.
    """
    sources = sorted({source for shard in annotated for source in shard.sources})
    if len(sources) > MOST_SOURCES:
        raise ValueError(
            f"{len(sources):,} sources, and at most {MOST_SOURCES:,} can be told apart: name several as one"
        )
    ledger = _enter(shards, annotated, sources, work.scratch / "ledger", params)

    def pairs(relation: str, taking_part: Path) -> list[Path]:
        found = [shard.folder / relation for shard in shards]
        jobs = matches(found, ledger.starts, taking_part, work.scratch / relation)
        run_shards(match, jobs, title=f"preprocess: match {relation}", executor=executor, kept=Kept.of(work))
        return [job.folder / PAIRS for job in jobs]

    tying = ledger.stays(TYING)
    ties, clusters = tie(ledger, pairs, tying, near=params.near_duplicates)
    assign_splits(ledger, ties, tying, params)
    contamination = find_contamination(ledger, shards, work, params, executor)
    mixtures = mix_sources(ledger, sources, weights, params)
    require_splits(ledger, params)
    tables = _write_tables(ledger, shards, contamination, work.scratch / "decisions")
    return Decisions(ledger, sources, tables, clusters, contamination, mixtures)


def tie(ledger: Ledger, pairs: Pairs, tying: np.ndarray[Any, Any], *, near: bool) -> tuple[I64, ClusterSizes]:
    """Drop duplicates, and find what must not be torn apart.

    Args:
        pairs: called with the name of the runs of contents, of bands and of groups.
        tying: which records stay so far, as in the column TYING.
        near: whether near duplicates are dropped, too.

    Returns:
        Flat components of the records that share a content, a cluster of near duplicates or a group, directly or
        through others; and the sizes of the clusters of duplicates.
    """
    clusters = {}
    parent = ledger.make("parent", "i8")
    for rows in ledger.blocks():
        parent[rows] = rows
    deduplicate(ledger, parent, pairs(CONTENTS, ledger.path(TYING)), "duplicate")
    clusters["exact"] = cluster_sizes(ledger, parent, tying)
    if near:
        distinct = ledger.stays(DISTINCT)
        deduplicate(ledger, parent, pairs(BANDS, ledger.path(DISTINCT)), "near_duplicate")
        clusters["near"] = cluster_sizes(ledger, parent, distinct)
    for path in pairs(GROUPS, ledger.path(TYING)):
        unite(parent, np.load(path, mmap_mode="r"))
    flatten(parent)
    return parent, clusters


def _enter(
    shards: Sequence[Annotate],
    annotated: Sequence[Annotated],
    sources: list[str],
    folder: Path,
    params: PreprocessParams,
) -> Ledger:
    """The ledger with what the annotations say of each record, and the drops for what it is itself.

    Their details go to files beside it: to make them again takes as long as all of this.
    """
    ends = np.cumsum([shard.records for shard in annotated]).tolist()
    ledger = Ledger(folder, [0, *ends[:-1]], ends[-1])
    for run in runs_of_shards(shards, ledger):
        kind, records, rows = shards[run.start].kind, read_records(shards, run), ledger.shards(run)
        ledger["kind"][rows] = KINDS.index(kind)
        ledger["source"][rows] = _codes(records["source"], sources)
        ledger["fixed"][rows] = _codes(records["split"], SPLIT_CODES, null=FREE)
        ledger["characters"][rows] = records["characters"].to_numpy()
        ledger["group_hash"][rows] = records["group_hash"].to_numpy()
        ledger["draw"][rows] = string_hashes(records["id"])
        verdicts = own_reasons(records, kind, params)
        reasons = verdicts["reason"]
        for reason in reasons.drop_nulls().unique().sort():
            ledger.code(reason)
        ledger["reason"][rows] = _codes(reasons, ledger.reasons, null=0)
        numbered = verdicts.with_columns(row=np.arange(rows.start, rows.stop))
        write_table(numbered.filter(reasons.is_not_null()).select("row", own="detail"), _own_details(ledger, run))
    return ledger


def _own_details(ledger: Ledger, run: range) -> Path:
    """Of the records of a run that are dropped for what they are themselves: `row`, and the detail `own`."""
    return ledger.folder / f"own-{run.start:05d}.parquet"


def _codes(values: pl.Series, known: Sequence[str], null: int = 0) -> np.ndarray[Any, Any]:
    return values.cast(pl.Enum(known)).to_physical().fill_null(null).to_numpy()


def _write_tables(ledger: Ledger, shards: Sequence[Annotate], contamination: Contamination, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    causes = Causes(ledger, shards)
    reasons, splits = pl.Series([None, *ledger.reasons[1:]], dtype=pl.String), pl.Series([*SPLIT_CODES, None])
    paths: list[Path] = []
    for run in runs_of_shards(shards, ledger):
        records, rows = read_records(shards, run, ["group", "source"]), ledger.shards(run)
        table = pl.DataFrame(
            {
                "row": np.arange(rows.start, rows.stop),
                "copies": ledger["copies"][rows],
                "reason": reasons.gather(ledger["reason"][rows]),
                "split": splits.gather(ledger["split"][rows]),
                "cause": causes.ids(ledger["cause"][rows]),
                "group": records["group"],
                "source": records["source"],
            }
        )
        numbers, most = contamination.to_drop(run, ledger.starts)
        evaluations = pl.DataFrame({"row": numbers, "evaluation": contamination.ids(most)})
        for details in (pl.read_parquet(_own_details(ledger, run), glob=False), evaluations):
            table = table.join(details, on="row", how="left", maintain_order="left")
        detail = (
            pl.when(pl.col("reason") == GROUP_OF_HELD_OUT)
            .then(pl.format("group {}", "group"))
            .when(pl.col("reason") == CONTAMINATED)
            .then("evaluation")
            .when(pl.col("reason") == MIXED_OUT)
            .then(pl.format("source {}", "source"))
            .otherwise(pl.coalesce("own", "cause"))
        )
        decided = table.select("copies", "reason", detail=detail, split="split")
        own = (ledger.shard(index) for index in run)
        tables = [decided[part.start - rows.start : part.stop - rows.start] for part in own]
        targets = [folder / f"{shards[index].path.stem}.parquet" for index in run]
        map_threads(lambda pair: write_table(*pair), zip(tables, targets, strict=True))
        paths += targets
    return paths
