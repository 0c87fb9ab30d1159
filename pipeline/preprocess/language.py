"""Language identification with a fastText model that the user brings."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

_LABEL = "__label__"


def identify(texts: pl.Series, model_file: Path) -> pl.DataFrame:
    """The likeliest language of each text. Its newlines count as spaces.

    Args:
        texts: String without nulls.
        model_file: a fastText model with labels, such as lid.176.bin, lid.176.ftz or GlotLID's.

    Returns:
        `language` (String: the label, less `__label__`) and `language_score` (Float64: its probability); null for a
        text without a word or part of a word that the model knows.

    Raises:
        ValueError: the package is not installed, or the file is no such model.
    """
    model = _load(model_file)
    languages, scores = [], []
    for line in texts.str.replace_all("\n", " ", literal=True):
        try:
            labels, probabilities = model.predict(line)
        except ValueError as error:
            raise ValueError(f"{model_file}: {error}") from None
        languages.append(labels[0].removeprefix(_LABEL) if labels else None)
        scores.append(min(float(probabilities[0]), 1.0) if labels else None)  # fastText's sum may round above 1
    schema = {"language": pl.String, "language_score": pl.Float64}
    return pl.DataFrame({"language": languages, "language_score": scores}, schema=schema)


@cache
def _load(model_file: Path) -> Any:
    try:
        import fasttext
    except ImportError:
        raise ValueError(
            "preprocess.language_model needs the package fasttext-predict, which is not installed: "
            "`pip install fasttext-predict` (the extra `language`), or set it to none"
        ) from None
    try:
        return fasttext.load_model(str(model_file))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{model_file}: not a fastText model: {error}") from None
