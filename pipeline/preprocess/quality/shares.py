"""Shares as measures: a part of a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl


def share(part: np.ndarray[Any, Any], whole: np.ndarray[Any, Any]) -> pl.Series:
    """(texts,) Float64, null where the whole is 0."""
    there = whole > 0
    return pl.Series(np.divide(part, whole, out=np.full(len(whole), np.nan), where=there), nan_to_null=True)
