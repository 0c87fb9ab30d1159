"""The page: all sections where there is something to show, and none where there is nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline.evaluate.report.content import Content
from pipeline.evaluate.report.costs import StageCost
from pipeline.evaluate.report.curves import Curve, Curves
from pipeline.evaluate.report.data import Data
from pipeline.evaluate.report.funnel import Flow, Funnel, Split
from pipeline.evaluate.report.headline import headline
from pipeline.evaluate.report.histograms import Histogram, TokenCounts
from pipeline.evaluate.report.page import render

KINDS = ("documents", "conversations")
HISTOGRAM = Histogram(np.array([1, 10, 100]), np.array([1, 2]), sampled=False)
OF_KIND = {
    "documents": {"bits_per_byte": 2.0, "document_loss": 3.0},
    "conversations": {"response_loss": 4.0, "response_perplexity": 54.6, "chrf": 10.0},
}
NASTY = "<script>alert(1)</script> see https://example.org/page & http://example.org"
SAMPLE = {"id": "a/b.py:1", "prompt": NASTY, "reference": "    indented\n\ttabbed", "base": "", "finetuned": "yes"}
RUN = StageCost("repro now", 75.0, "0123456789abcdef", True, 1234.0, 2048.0)


def content(*kinds: str) -> Content:
    """Everything there is to show of data of `kinds`."""
    figures = {name: value for kind in kinds for name, value in OF_KIND[kind].items()}
    metrics = dict.fromkeys(("base", "finetuned"), figures)
    if "documents" in kinds:
        metrics |= {"unigram": {"bits_per_byte": 3.0}, "bigram": {"bits_per_byte": 2.5}}
    curves = Curves(Curve([10, 20], [5.0, 4.0]), Curve([10, 20], [4.5, 4.25]))
    return Content(
        written=0.0,
        lines=headline(metrics),
        samples=[SAMPLE] if "conversations" in kinds else [],
        samples_in_all=1,
        data=Data(
            Funnel(
                {"no_body": 7},
                [Flow(kind, 1000, {"duplicate": 10}, 0, {"too_long": 5}) for kind in kinds],
                [Split(kind, "train", 990, 985, {"too_long": 5}, 3, 50, 4000, 3000, 0.75) for kind in kinds],
            ),
            dict.fromkeys(kinds, HISTOGRAM),
            dict.fromkeys(kinds, HISTOGRAM),
            {kind: TokenCounts(np.array([9, 3, 1]), sampled=False) for kind in kinds},
        ),
        curves={"base": curves, "finetune": curves},
        costs={"ingest": RUN, "base": RUN, "finetune": RUN, "evaluate": RUN},
        decoding={"base": 900.0, "finetuned": 901.0},
        outputs={"base": {"artifacts/base/model": "f" * 64}},
        machine={"Device": "cpu"},
        parameters={"ingest": {"source": "https://example.org/data"}},
    )


class Reader(HTMLParser):
    """What a page is made of: its elements by tag, its headings, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    def sections(self) -> list[str]:
        return [attrs["id"] for tag, attrs in self.elements if tag in ("header", "section")]


def test_a_page_has_every_section_and_figure():
    page = Reader(render(content(*KINDS)))
    assert page.sections() == ["results", "training", "data", "samples", "cost", "lineage"]
    assert page.count("svg") == 7
    for words in ("1 min 15 s", "2.00 GiB", "1,234", "0123456789", "uncommitted changes", "no body", "75.0"):
        assert words in page.text
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert links == [f"#{section}" for section in page.sections()]


def test_no_address_is_in_the_source_and_text_stays_text():
    source = render(content(*KINDS))
    page = Reader(source)
    assert "://" not in source
    assert page.count("script") == page.count("link") == page.count("img") == 0
    assert NASTY in page.text
    assert SAMPLE["reference"] in page.text
    assert not re.search(r"@import|url\((?!#)", source)


def test_ids_are_unique_in_the_page():
    ids = [attrs["id"] for _, attrs in Reader(render(content(*KINDS))).elements if "id" in attrs]
    assert len(ids) > 20
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("kind", "drawings"), [("documents", 7), ("conversations", 6)])
def test_one_kind_of_record_is_enough(kind, drawings):
    page = Reader(render(content(kind)))
    assert page.count("svg") == drawings  # the baselines count documents only
    assert ("samples" in page.sections()) == (kind == "conversations")
    assert ("Bits per byte" in page.text) == (kind == "documents")
    assert ("chrF" in page.text) == (kind == "conversations")


def test_a_base_model_that_was_given_has_no_curve_of_its_own():
    whole = content(*KINDS)
    page = Reader(render(replace(whole, curves={"finetune": whole.curves["finetune"]})))
    assert "Pre-training" not in page.text
    assert page.count("svg") == 6
    assert "training" not in Reader(render(replace(whole, curves={}))).sections()


def test_without_samples_there_is_no_section_of_them():
    page = Reader(render(replace(content(*KINDS), samples=[], samples_in_all=0)))
    assert page.sections() == ["results", "training", "data", "cost", "lineage"]


def test_many_samples_are_folded_and_their_number_is_told():
    page = Reader(render(replace(content(*KINDS), samples=[SAMPLE] * 10, samples_in_all=2000)))
    assert page.count("article") == 10
    assert "The first 10 of 2,000" in page.text
    assert "4 more" in page.text


def test_a_run_that_is_not_on_record_is_said_to_be_so():
    page = Reader(render(replace(content(*KINDS), costs={"base": None, "evaluate": None})))
    assert page.text.count("not recorded") == 3  # two stages and an output
    assert "in all" not in page.text


def test_a_sample_of_the_data_is_said_to_be_one():
    whole = content(*KINDS)
    assert "A sample of" not in Reader(render(whole)).text
    sampled = {"documents": replace(HISTOGRAM, sampled=True)}
    page = Reader(render(replace(whole, data=replace(whole.data, characters=sampled))))
    assert "A sample of at most 20,000 records, evenly spaced." in page.text
