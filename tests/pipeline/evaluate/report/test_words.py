"""Figures as people read them."""

from __future__ import annotations

import pytest

from pipeline.evaluate.report import words


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (words.decimal(-1234.5, 2), "-1,234.50"),
        (words.count(1_638_400.0), "1,638,400"),
        (words.signed(0.5, 3), "+0.500"),
        (words.signed(-0.5, 1), "-0.5"),
        (words.signed(-0.0004, 3), "0.000"),
        (words.signed_percent(-0.285), "-28.5 %"),
        (words.duration(3.14), "3.1 s"),
        (words.duration(59.97), "1 min 00 s"),
        (words.duration(228.4), "3 min 48 s"),
        (words.duration(7384), "2 h 03 min"),
        (words.memory(841.3), "841 MiB"),
        (words.memory(1536), "1.50 GiB"),
        (words.compact(1_500_000), "1.5M"),
        (words.compact(20_000), "20k"),
        (words.compact(0.25), "0.25"),
        (words.plain_percent(0.0000001), "0.00001%"),
        (words.plain_percent(0.1), "10%"),
        (words.reason("prompt_too_long"), "prompt too long"),
    ],
)
def test_words(shown, expected):
    assert shown.replace("\N{NO-BREAK SPACE}", " ").replace(words.MINUS, "-") == expected
