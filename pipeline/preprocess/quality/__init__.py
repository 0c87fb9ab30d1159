"""What is measured of a text and why it is dropped: the presets of pipeline/rules.py.

Measuring is apart from deciding: a changed threshold needs no new measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from pipeline.rules import select_rules

__all__ = ["decide", "measure", "rewrite"]


def rewrite(texts: pl.Series, presets: Sequence[str]) -> pl.Series:
    """The texts without the lines that a preset takes away, before they are measured (so far only `c4` does).

    Args:
        texts: String, cleaned (lines end in `\\n`).
        presets: names in `pipeline.rules.PRESETS`.
    """
    raise NotImplementedError


def measure(texts: pl.Series, presets: Sequence[str]) -> pl.DataFrame:
    """One row for each text with the measures that the rules of the presets look at, each once.

    Args:
        texts: String without nulls, cleaned and rewritten.
        presets: names in `pipeline.rules.PRESETS`; none gives a table without columns.

    Returns:
        Int64 counts and Float64 shares, null where a share has no whole (a text without lines, words, …).
    """
    raise NotImplementedError


def decide(measures: pl.DataFrame, presets: Sequence[str], thresholds: Mapping[str, float]) -> pl.DataFrame:
    """For each row of `measure`'s table: `reason` (String, the first rule that it breaks; null where it breaks
    none) and `detail` (String: the measure and its threshold).

    Args:
        thresholds: rule name -> threshold in place of the preset's own.

    Raises:
        ValueError: an unknown preset or rule.
    """
    select_rules(presets, thresholds)
    raise NotImplementedError
