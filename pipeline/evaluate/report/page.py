"""The content -> one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline.evaluate.report import charts, words
from pipeline.evaluate.report.content import Content
from pipeline.evaluate.report.headline import MODELS, sentence
from pipeline.evaluate.report.histograms import SAMPLED
from pipeline.evaluate.report.svg import FIRST, SECOND

HERE = Path(__file__).parent
WORDS: tuple[Callable[..., str], ...] = (
    words.count,
    words.decimal,
    words.duration,
    words.memory,
    words.moment,
    words.percent,
    words.signed,
    words.signed_percent,
)
"""What the template makes of figures."""

OF_STAGE = {"base": FIRST, "finetune": SECOND}


def render(content: Content) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {function.__name__: function for function in WORDS}
    return environment.get_template("report.html.j2").render(
        content=content,
        columns=[model for model in MODELS if any(model in line.values for line in content.lines)],
        models=MODELS,
        sampled=SAMPLED,
        sentence=sentence(content.lines[0]),
        figures=_figures(content),
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
    )


def harmless(value: Any) -> Markup:
    """Text to put between tags, with no address left in it that a reader of the source could take for a link."""
    return value if isinstance(value, Markup) else Markup(str(escape(value)).replace("/", "&#47;"))


def _figures(content: Content) -> dict[str, Markup]:
    """The drawings, by name; what there is nothing to draw of is missing."""
    data = content.data
    return {
        **{
            line.measure.key: charts.bars(line, line.measure.key.replace("_", "-"))
            for line in content.lines
            if len(line.values) > 2
        },
        **{stage: charts.losses(curves, OF_STAGE[stage], stage) for stage, curves in content.curves.items()},
        "flows": charts.flows(data.funnel.flows, "flows"),
        "characters": charts.lengths(data.characters, "characters", "characters", logarithmic=True),
        "sequences": charts.lengths(data.sequences, "tokens", "sequences", logarithmic=False),
        "tokens": charts.frequencies(data.tokens, "tokens"),
    }
