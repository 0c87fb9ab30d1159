"""The measures of the presets, taken together."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from pipeline.preprocess.batches import batches
from pipeline.preprocess.quality.c4 import keep_lines, measure_c4
from pipeline.preprocess.quality.characters import BATCH, Characters
from pipeline.preprocess.quality.code import measure_code
from pipeline.preprocess.quality.fineweb import measure_fineweb
from pipeline.preprocess.quality.gopher import measure_quality, measure_repetition
from pipeline.preprocess.quality.segments import find_lines
from pipeline.preprocess.quality.tokens import tokenize
from pipeline.rules import select_rules


def rewrites(presets: Sequence[str]) -> bool:
    """Whether one of them takes lines away."""
    return "c4" in presets


def rewrite(texts: pl.Series, presets: Sequence[str]) -> pl.Series:
    """The texts without the lines that a preset takes away, before they are measured.

    Args:
        texts: String without nulls, cleaned (lines end in `\\n`).
        presets: names in `pipeline.rules.PRESETS`.
    """
    return keep_lines(texts) if rewrites(presets) else texts


def measure(texts: pl.Series, presets: Sequence[str]) -> pl.DataFrame:
    """One row for each text with the measures that the rules of the presets look at, each once.

    Args:
        texts: String without nulls, cleaned and rewritten.
        presets: names in `pipeline.rules.PRESETS` that have rules.

    Returns:
        Int64 counts and Float64 shares, null where a share has no whole (a text without lines, words, ...).
    """
    wanted = list(dict.fromkeys(rule.measure for rule in select_rules(presets, {})))
    parts = [_measure_batch(batch, presets) for batch in batches(texts, BATCH)]
    parts = parts or [_measure_batch(texts, presets)]
    return pl.concat(parts).select(wanted)


def _measure_batch(texts: pl.Series, presets: Sequence[str]) -> pl.DataFrame:
    measures: dict[str, pl.Series] = {}
    characters = Characters.of(texts)
    lines = find_lines(characters)
    if "gopher" in presets or "fineweb" in presets:
        tokens = tokenize(characters)
    if "gopher" in presets:
        measures |= measure_repetition(characters, lines, tokens)
        measures |= measure_quality(texts, characters, lines, tokens)
    if "c4" in presets:
        measures |= measure_c4(texts)
    if "fineweb" in presets:
        measures |= measure_fineweb(characters, lines, tokens)
    if "code" in presets:
        measures |= measure_code(texts, characters, lines)
    return pl.DataFrame(measures)
