"""The figures of clean/statistics/, as tables: data/README.md describes them. Equal decisions give equal bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.preprocess.annotate import Annotate, Annotated
from pipeline.preprocess.decide import Decisions
from pipeline.preprocess.ledger import SPLIT_CODES
from pipeline.preprocess.records import read_records, runs_of_shards
from pipeline.shards.tables import DOCUMENTS, KINDS

_UNKNOWN = "unknown"
"""The language of a document in which no model sees one."""

_FIGURES = {
    "records": pl.col("copies").cast(pl.Int64).sum(),
    "characters": (pl.col("characters").cast(pl.Int64) * pl.col("copies")).sum(),
}


def statistics(
    shards: Sequence[Annotate], annotated: Sequence[Annotated], decisions: Decisions
) -> dict[str, pl.DataFrame]:
    """The tables, by the names of their files, in the order of their rows.

    Those that dvc.yaml plots have a row of 0 where there is nothing to count: DVC cannot plot a header alone.
    """
    kept, dropped, lengths = _of_all(decisions)
    return {
        "records": kept,
        "dropped": _dropped(dropped, kept),
        "lengths": lengths,
        "clusters": _clusters(decisions),
        "mixture": _mixture(decisions),
        "masked": _masked(annotated),
        "languages": _languages(shards, decisions),
    }


def write_statistics(tables: dict[str, pl.DataFrame], folder: Path) -> dict[str, int]:
    """Write each table as CSV: the rows of each file."""
    folder.mkdir()
    for name, table in tables.items():
        table.write_csv(folder / f"{name}.csv")
    return {f"{folder.name}/{name}.csv": table.height for name, table in tables.items()}


_KEYS = (("kind", "source", "split"), ("kind", "source", "reason"), ("kind", "split", "characters_from"))


def _of_all(decisions: Decisions) -> list[pl.DataFrame]:
    """What stays, what is dropped, and lengths of what stays, summed by _KEYS."""
    totals: list[pl.DataFrame] = []
    for tables in _of_blocks(decisions):
        if totals:
            tables = [pl.concat(pair) for pair in zip(totals, tables, strict=True)]
        totals = [_summed(table, *keys) for table, keys in zip(tables, _KEYS, strict=True)]
    return totals


def _of_blocks(decisions: Decisions) -> Iterator[list[pl.DataFrame]]:
    """A block of records at a time."""
    ledger = decisions.ledger
    kinds, splits = pl.Series(KINDS), pl.Series([*SPLIT_CODES, None], dtype=pl.String)
    for rows in ledger.blocks():
        table = pl.DataFrame(
            {
                "kind": kinds.gather(ledger["kind"][rows]),
                "source": pl.Series(decisions.sources, dtype=pl.String).gather(ledger["source"][rows]),
                "split": splits.gather(ledger["split"][rows]),
                "reason": pl.Series(ledger.reasons).gather(ledger["reason"][rows]),
                "copies": ledger["copies"][rows],
                "characters": ledger["characters"][rows],
            }
        )
        bits = np.floor(np.log2(np.maximum(ledger["characters"][rows], 1))).astype(np.int64)
        table = table.with_columns(characters_from=pl.Series(1 << bits))
        kept = table.filter(pl.col("reason") == "none")
        dropped = table.filter(pl.col("reason") != "none").with_columns(copies=pl.lit(1))
        figures: list[Mapping[str, pl.Expr]] = [_FIGURES, _FIGURES, {"records": _FIGURES["records"]}]
        parts = zip((kept, dropped, kept), _KEYS, figures, strict=True)
        yield [part.group_by(keys).agg(**wanted) for part, keys, wanted in parts]


def _summed(table: pl.DataFrame, *keys: str) -> pl.DataFrame:
    return table.group_by(keys).sum().sort(keys)


def _dropped(dropped: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    if dropped.is_empty():
        dropped = kept.select("kind", "source", pl.lit("none").alias("reason"), pl.col(*_FIGURES) * 0)
    return _summed(dropped, "kind", "source", "reason")


def _clusters(decisions: Decisions) -> pl.DataFrame:
    clusters = decisions.clusters.items()
    rows = [(name, size, count) for name, sizes in clusters for size, count in (sizes or {2: 0}).items()]
    schema = {"duplicates": pl.String, "records": pl.Int64, "clusters": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("duplicates", "records")


def _mixture(decisions: Decisions) -> pl.DataFrame:
    schema = {
        "kind": pl.String,
        "source": pl.String,
        "characters_in": pl.Int64,
        "characters_out": pl.Int64,
        "wanted_share": pl.Float64,
    }
    rows = [
        (mixture.kind, mixture.source, mixture.characters_in, mixture.characters_out, mixture.wanted_share)
        for mixture in decisions.mixtures
    ]
    total = pl.col("characters_out").sum().over("kind")
    share = pl.when(total > 0).then(pl.col("characters_out") / total).otherwise(0.0)
    table = pl.DataFrame(rows, schema=schema, orient="row").with_columns(share=share)
    return table.with_columns(pl.col("wanted_share", "share").round(6)).sort("kind", "source")


def _masked(annotated: Sequence[Annotated]) -> pl.DataFrame:
    counts: Counter[str] = sum((Counter(shard.masked) for shard in annotated), Counter())
    return pl.DataFrame(sorted(counts.items()), schema={"masked": pl.String, "places": pl.Int64}, orient="row")


def _languages(shards: Sequence[Annotate], decisions: Decisions) -> pl.DataFrame:
    none = pl.DataFrame({"source": decisions.sources, "language": _UNKNOWN, "records": 0})
    runs = runs_of_shards(shards, decisions.ledger)
    total = none
    for run in runs:
        if shards[run.start].kind == DOCUMENTS:
            part = _languages_of(shards, run)
            total = part if total is none else _summed(pl.concat([total, part]), "source", "language")
    return _summed(total, "source", "language")


def _languages_of(shards: Sequence[Annotate], run: range) -> pl.DataFrame:
    has_model = shards[run.start].language_model is not None
    table = read_records(shards, run, ["source", "language"] if has_model else ["source"])
    language = pl.col("language").fill_null(_UNKNOWN) if has_model else pl.lit(_UNKNOWN)
    table = table.with_columns(language=language)
    return table.group_by("source", "language").agg(records=pl.len().cast(pl.Int64))
