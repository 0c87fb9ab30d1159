"""Which figures lead the report, and what fine-tuning did to them."""

from __future__ import annotations

import pytest

from pipeline.evaluate.report.headline import headline, sentence

METRICS = {
    "base": {"response_loss": 5.0, "chrf": 8.0, "bits_per_byte": 1.75},
    "finetuned": {"response_loss": 4.0, "chrf": 6.0, "bits_per_byte": 1.7501},
    "bigram": {"bits_per_byte": 1.95},
}


def test_a_measure_is_judged_by_its_direction_and_to_the_digits_shown():
    lines = {line.measure.key: line for line in headline(METRICS)}
    assert {key: line.verdict for key, line in lines.items()} == {
        "response_loss": "better",
        "chrf": "worse",
        "bits_per_byte": "same",
    }
    assert lines["response_loss"].difference == -1.0
    assert lines["response_loss"].share == pytest.approx(-0.2)
    assert list(lines["bits_per_byte"].values) == ["bigram", "base", "finetuned"]


def test_a_base_figure_of_zero_has_no_share():
    (line,) = headline({"base": {"chrf": 0.0}, "finetuned": {"chrf": 2.0}})
    assert line.share is None
    assert sentence(line) == "Fine-tuning raised the chrF of responses, from 0.00 to 2.00."


@pytest.mark.parametrize(
    ("base", "finetuned", "words"),
    [
        (5.0, 4.0, "lowered the loss on responses by 20.0 %, from 5.000 to 4.000"),
        (4.0, 5.0, "raised the loss on responses by 25.0 %, from 4.000 to 5.000"),
        (4.0, 4.0001, "left the loss on responses at 4.000"),
    ],
)
def test_the_first_line_says_what_happened(base, finetuned, words):
    (line,) = headline({"base": {"response_loss": base}, "finetuned": {"response_loss": finetuned}})
    assert sentence(line).replace("\N{NO-BREAK SPACE}", " ") == f"Fine-tuning {words} nats per token."
