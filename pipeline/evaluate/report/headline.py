"""What came out, in the order in which people ask: each figure of both models and the baselines, and who is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.evaluate.measured import Figures
from pipeline.evaluate.report.words import decimal, percent

MODELS = {"unigram": "Unigram", "bigram": "Bigram", "base": "Base", "finetuned": "Fine-tuned"}
"""From the least to the most that was learned, and what people read."""


@dataclass(frozen=True)
class Measure:
    """A figure of metrics.json: what it is called, and which way is better."""

    key: str
    name: str
    unit: str
    digits: int
    better: Literal["lower", "higher"]
    leads: bool
    """Worth a place at the top of the page."""


MEASURES = (
    Measure("response_loss", "Loss on responses", "nats per token", 3, "lower", True),
    Measure("response_perplexity", "Perplexity of responses", "", 2, "lower", False),
    Measure("chrf", "chrF of responses", "", 2, "higher", True),
    Measure("bits_per_byte", "Bits per byte of documents", "", 3, "lower", True),
    Measure("document_loss", "Loss on documents", "nats per token", 3, "lower", False),
)


@dataclass(frozen=True)
class Line:
    """A measure of every model that has it."""

    measure: Measure
    values: dict[str, float]

    @property
    def difference(self) -> float:
        """From base to fine-tuned."""
        return self.values["finetuned"] - self.values["base"]

    @property
    def share(self) -> float | None:
        """The difference as a share of the base model's figure; None where that is zero."""
        base = self.values["base"]
        return self.difference / abs(base) if base else None

    @property
    def verdict(self) -> Literal["better", "worse", "same"]:
        """What fine-tuning did, to the digits shown."""
        if round(self.difference, self.measure.digits) == 0:
            return "same"
        return "better" if (self.difference < 0) == (self.measure.better == "lower") else "worse"


def headline(metrics: Figures) -> list[Line]:
    """A line for each measure that both models have."""
    lines = [Line(measure, _values(metrics, measure.key)) for measure in MEASURES]
    return [line for line in lines if {"base", "finetuned"} <= line.values.keys()]


def sentence(line: Line) -> str:
    """The line in words."""
    measure = line.measure
    base, finetuned = (decimal(line.values[model], measure.digits) for model in ("base", "finetuned"))
    name = measure.name[0].lower() + measure.name[1:]
    if line.verdict == "same":
        return f"Fine-tuning left the {name} at {finetuned}{measure.unit and ' ' + measure.unit}."
    moved = "lowered" if line.difference < 0 else "raised"
    by = f" by {percent(abs(line.share))}" if line.share is not None else ""
    return f"Fine-tuning {moved} the {name}{by}, from {base} to {finetuned}{measure.unit and ' ' + measure.unit}."


def _values(metrics: Figures, key: str) -> dict[str, float]:
    return {model: metrics[model][key] for model in MODELS if key in metrics.get(model, {})}
