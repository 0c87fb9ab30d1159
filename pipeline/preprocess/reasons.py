"""Why a record is dropped for what it is itself: the thresholds, over what was kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from pipeline.preprocess.cleaning import judge
from pipeline.preprocess.quality import decide
from pipeline.rules import with_rules
from pipeline.shards.tables import DOCUMENTS

if TYPE_CHECKING:
    from pipeline.params import PreprocessParams

OTHER_LANGUAGE = "other_language"


def own_reasons(records: pl.DataFrame, kind: str, params: PreprocessParams) -> pl.DataFrame:
    """`reason` and `detail` for each row of an annotated shard, null where the record stays.

    The bounds come first, then the language, then the rules of quality; these two are for documents only.
    """
    verdicts = [judge(records, kind, params.min_chars, params.max_chars)]
    if kind == DOCUMENTS and params.languages:
        verdicts.append(_judge_language(records, params.languages, params.min_language_score))
    if kind == DOCUMENTS and with_rules(params.quality):
        verdicts.append(decide(records, params.quality, params.thresholds))
    chosen = verdicts[0]
    for verdict in verdicts[1:]:
        is_new = chosen["reason"].is_null()
        chosen = chosen.with_columns(
            reason=pl.when(is_new).then(verdict["reason"]).otherwise("reason"),
            detail=pl.when(is_new).then(verdict["detail"]).otherwise("detail"),
        )
    return chosen


def _judge_language(records: pl.DataFrame, wanted: Sequence[str], min_score: float) -> pl.DataFrame:
    language, score = pl.col("language").fill_null("none"), pl.col("language_score").fill_null(0.0)
    is_other = ~language.is_in(list(wanted)) | (score < min_score)
    detail = pl.format("{} ({})", language, score.round(2))
    return records.select(reason=pl.when(is_other).then(pl.lit(OTHER_LANGUAGE)), detail=pl.when(is_other).then(detail))
