"""Drawings of data at its extremes: the axes can be read, and the figures are those of the data."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from markupsafe import Markup

from pipeline.evaluate.report import charts
from pipeline.evaluate.report.curves import Curve, Curves
from pipeline.evaluate.report.funnel import Flow
from pipeline.evaluate.report.headline import headline
from pipeline.evaluate.report.histograms import Histogram, TokenCounts
from pipeline.evaluate.report.svg import FIRST


def texts(drawing: Markup) -> list[str]:
    return [element.text or "" for element in ET.fromstring(drawing).iter("text")]


@pytest.mark.parametrize("edges", [[362, 512], [45, 64, 90], [1, 1000, 10**9]])
def test_a_logarithmic_axis_has_ticks_however_short_it_is(edges):
    histogram = Histogram(np.array(edges), np.ones(len(edges) - 1), sampled=False)
    found = texts(charts.lengths({"documents": histogram}, "characters", "a", logarithmic=True))
    ticks = found[: found.index("characters")]
    assert 1 <= sum(bool(tick) for tick in ticks) <= 10, ticks


def test_bars_are_labelled_with_their_figures():
    values = {"bigram": 2.5, "base": 2.0, "finetuned": 1.5}
    (line,) = headline({model: {"bits_per_byte": value} for model, value in values.items()})
    assert texts(charts.bars(line, "a")) == ["Bigram", "Base", "Fine-tuned", "2.500", "2.000", "1.500"]


def test_flows_say_what_stays_and_what_goes():
    found = texts(charts.flows([Flow("documents", 1000, {"duplicate": 100}, 0, {"too_long": 900})], "a"))
    assert [text.replace("\N{MINUS SIGN}", "-") for text in found[3:6]] == ["1,000", "900  (-100)", "0  (-900)"]


def test_a_single_step_and_a_single_token_can_be_drawn():
    point = Curve([512.0], [6.0])
    assert {"training", "validation"} <= set(texts(charts.losses(Curves(point, point), FIRST, "a")))
    assert "documents" in texts(charts.frequencies({"documents": TokenCounts(np.array([3]), sampled=False)}, "a"))
