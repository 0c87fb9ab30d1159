"""The report's figures, drawn."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipeline.evaluate.report import words
from pipeline.evaluate.report.curves import Curves
from pipeline.evaluate.report.funnel import Flow
from pipeline.evaluate.report.headline import MODELS, Line
from pipeline.evaluate.report.histograms import Histogram, TokenCounts
from pipeline.evaluate.report.svg import FIRST, INK, REST, SECOND, canvas, inline
from pipeline.evaluate.report.tables import rank_frequency

OF_KIND = {"documents": FIRST, "conversations": SECOND}
OF_MODEL = {"unigram": REST, "bigram": REST, "base": FIRST, "finetuned": SECOND}

COMPACT = FuncFormatter(lambda value, _: words.compact(value))
PERCENT = FuncFormatter(lambda value, _: words.plain_percent(value))


def bars(line: Line, name: str) -> Markup:
    """A measure of every model, one bar each, with its figure at the end."""
    models = list(line.values)
    with canvas(height=34 + 27 * len(models)) as figure:
        axes = figure.subplots()
        drawn = axes.barh(
            [MODELS[model] for model in models],
            list(line.values.values()),
            height=0.62,
            color=[OF_MODEL[model] for model in models],
        )
        axes.bar_label(drawn, fmt=f"%.{line.measure.digits}f", padding=5, color=INK)
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", labelcolor=INK, labelsize=10.5)
        return inline(figure, name, f"Bar chart: {line.measure.name} of {', '.join(MODELS[model] for model in models)}")


def losses(curves: Curves, colour: str, name: str) -> Markup:
    """Training and validation loss against tokens seen."""
    with canvas(height=235) as figure:
        axes = figure.subplots()
        axes.plot(curves.train.tokens, curves.train.loss, color=colour, linewidth=1.2, alpha=0.65, label="training")
        axes.plot(
            curves.validation.tokens, curves.validation.loss, "o-", color=colour, markersize=4.5, label="validation"
        )
        axes.set(xlabel="tokens seen", ylabel="loss (nats per token)", xlim=(0, None))
        axes.xaxis.set_major_formatter(COMPACT)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axes.grid(True, axis="y")
        axes.legend(loc="upper right")
        return inline(figure, name, "Line chart: training and validation loss against tokens seen")


def flows(found: list[Flow], name: str) -> Markup:
    """For each kind and data stage: the records that it handed on and, beside them, those that it dropped."""
    with canvas(height=28 + 92 * len(found)) as figure:
        for axes, flow in zip(_panels(figure.subplots(len(found), squeeze=False)), found, strict=True):
            kept = np.array([flow.found, flow.cleaned, flow.packed])
            lost = np.array([0, sum(flow.preprocess.values()), sum(flow.tokenize.values())])
            stages = ["ingest", "preprocess", "tokenize"]
            axes.barh(stages, kept, height=0.62, color=OF_KIND[flow.kind])
            axes.barh(stages, lost, left=kept, height=0.62, color=REST)
            for row, (count, dropped) in enumerate(zip(kept, lost, strict=True)):
                text = words.count(count) + (f"  ({words.count(-dropped)})" if dropped else "")
                axes.annotate(text, (count + dropped, row), (5, 0), textcoords="offset points", va="center", color=INK)
            axes.set_title(flow.kind)
            axes.set_xlim(0, max(kept + lost) * 1.3)
            axes.invert_yaxis()
            axes.xaxis.set_visible(False)
            axes.spines["bottom"].set_visible(False)
            axes.tick_params(axis="y", labelcolor=INK)
        return inline(figure, name, "Bar chart: records after each data stage, and what it dropped")


def lengths(histograms: dict[str, Histogram], unit: str, name: str, *, logarithmic: bool) -> Markup:
    """A histogram per kind, one below the other over the same axis."""
    with canvas(height=45 + 95 * len(histograms)) as figure:
        panels = _panels(figure.subplots(len(histograms), squeeze=False, sharex=True))
        for axes, (kind, histogram) in zip(panels, histograms.items(), strict=True):
            axes.stairs(histogram.shares, histogram.edges, fill=True, color=OF_KIND[kind])
            axes.set_title(kind)
            axes.yaxis.set_major_formatter(PERCENT)
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.grid(True, axis="y")
        panels[-1].set_xlabel(unit)
        if logarithmic:
            _logarithmic(panels[-1], "x")
        else:
            panels[-1].xaxis.set_major_formatter(COMPACT)
            panels[-1].set_xlim(0, None)
        return inline(figure, name, f"Histogram: {unit}, by kind of record")


def frequencies(counts: dict[str, TokenCounts], name: str) -> Markup:
    """The share of each token against its rank, both axes logarithmic."""
    with canvas(height=235) as figure:
        axes = figure.subplots()
        for kind, found in counts.items():
            axes.plot(*rank_frequency(found), color=OF_KIND[kind], label=kind)
        axes.set(xlabel="rank of the token", ylabel="share of all tokens")
        _logarithmic(axes, "x")
        _logarithmic(axes, "y")
        axes.yaxis.set_major_formatter(PERCENT)
        axes.grid(True, axis="y")
        axes.legend(loc="lower left")
        return inline(figure, name, "Line chart: share of all tokens against rank, both on logarithmic axes")


def _logarithmic(axes: Axes, which: str) -> None:
    """Ticks at the powers of ten, and between them where there are few, in plain figures."""
    axis, limits = (axes.xaxis, axes.get_xlim) if which == "x" else (axes.yaxis, axes.get_ylim)
    axes.set(**{f"{which}scale": "log"})
    low, high = limits()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(COMPACT)
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(FixedLocator([]))


def _panels(grid: np.ndarray) -> list[Axes]:
    return list(grid[:, 0])
