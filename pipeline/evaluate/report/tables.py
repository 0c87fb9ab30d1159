"""The figures as tables, for `dvc plots`: the same inputs give the same bytes. A kind that is not there has no rows."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluate.measured import Figures
from pipeline.evaluate.report.data import Data
from pipeline.evaluate.report.funnel import Funnel
from pipeline.evaluate.report.histograms import Histogram, TokenCounts
from pipeline.shards.tables import KINDS

BARS = ("bits_per_byte", "response_loss", "chrf")
RANKS_PER_DOUBLING = 4
DIGITS = 6

Row = Sequence[Any]


def write_tables(directory: Path, metrics: Figures, data: Data) -> None:
    """Write every table that dvc.yaml lists under `plots`."""
    for figure in BARS:
        bars = ((name, figures[figure]) for name, figures in metrics.items() if figure in figures)
        _write(directory / f"{figure}.csv", ["model", figure], bars)
    _write(directory / "funnel.csv", ["step", "kind", "records"], _funnel(data.funnel))
    for kind in KINDS:
        _write(
            directory / "record_length" / f"{kind}.csv",
            ["log10_characters", "characters", "share"],
            ((_log10(edge), edge, share) for edge, share in _bins(data.characters.get(kind))),
        )
        _write(directory / "sequence_length" / f"{kind}.csv", ["tokens", "share"], _bins(data.sequences.get(kind)))
        _write(
            directory / "token_frequency" / f"{kind}.csv",
            ["log10_rank", "log10_share", "rank", "share"],
            ((_log10(rank), _log10(share), rank, share) for rank, share in _frequencies(data.tokens.get(kind))),
        )


def rank_frequency(counts: TokenCounts) -> tuple[np.ndarray, np.ndarray]:
    """(rank from 1, share of all tokens) at ranks that are evenly spaced on a logarithmic axis, the last included."""
    last = len(counts.counts)
    doublings = np.arange(RANKS_PER_DOUBLING * last.bit_length()) / RANKS_PER_DOUBLING
    ranks = np.unique(np.append(np.floor(2**doublings).astype(np.int64), last))
    ranks = ranks[ranks <= last]
    return ranks, counts.shares[ranks - 1]


def _funnel(funnel: Funnel) -> Iterator[Row]:
    """Numbered, since a plot sorts the steps by name."""
    for number, step in enumerate(funnel.steps(), 1):
        for kind, count in step.records.items():
            yield f"{number:02d} {step.stage}, {step.outcome}", kind, count


def _bins(histogram: Histogram | None) -> Iterator[tuple[int, float]]:
    if histogram:
        for edge, share in zip(histogram.edges[:-1].tolist(), histogram.shares.tolist(), strict=True):
            yield edge, round(share, DIGITS)


def _frequencies(counts: TokenCounts | None) -> Iterator[tuple[int, float]]:
    if counts:
        ranks, shares = rank_frequency(counts)
        yield from zip(ranks.tolist(), shares.tolist(), strict=True)


def _log10(value: float) -> float:
    """Rounded: the last digits of a logarithm differ from machine to machine."""
    return round(math.log10(value), 4)


def _write(path: Path, columns: list[str], rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
