"""From measures to verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from pipeline.rules import Rule, select_rules


def decide(measures: pl.DataFrame, presets: Sequence[str], thresholds: Mapping[str, float]) -> pl.DataFrame:
    """For each row of `measure`'s table: `reason` (String, the first rule that it breaks; null where it breaks
    none) and `detail` (String: the measure and its threshold).

    Args:
        measures: with the measures of the presets. One that is null breaks no rule.
        presets: names in `pipeline.rules.PRESETS`.
        thresholds: rule name -> threshold in place of the preset's own.

    Raises:
        ValueError: an unknown preset or rule.
    """
    rules = select_rules(presets, thresholds)
    reason = [pl.when(breaks(rule)).then(pl.lit(rule.name)) for rule in rules]
    detail = [pl.when(breaks(rule)).then(_detail(rule)) for rule in rules]
    none = pl.lit(None, dtype=pl.String)
    rows = measures.with_row_index("row")
    dropped = rows.filter(pl.any_horizontal(pl.lit(False), *map(breaks, rules)))  # few: to format a detail takes long
    dropped = dropped.rechunk()  # Polars 2.1 fails to format a column with an empty part, as of a shard of no such rows
    verdicts = dropped.select("row", reason=pl.coalesce(*reason, none), detail=pl.coalesce(*detail, none))
    return rows.select("row").join(verdicts, on="row", how="left", maintain_order="left").drop("row")


def breaks(rule: Rule) -> pl.Expr:
    """Whether each row of measures breaks the rule; null where the measure is."""
    measure = pl.col(rule.measure)
    return measure < rule.threshold if rule.is_least else measure > rule.threshold


def _detail(rule: Rule) -> pl.Expr:
    sign = "<" if rule.is_least else ">"
    return pl.format(f"{rule.measure} {{}} {sign} {rule.threshold:g}", pl.col(rule.measure).round(4))
