"""Drawings that go into a page: nothing of theirs reaches out of it or into each other."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from markupsafe import Markup

from pipeline.evaluate.report.svg import FIRST, ROLES, SECOND, canvas, inline


def draw(name: str, description: str = "a drawing") -> Markup:
    with canvas(height=200) as figure:
        axes = figure.subplots()
        axes.plot([1, 2, 3], [3, 1, 2], "o-", color=FIRST, label="<one>")
        axes.fill_between([1, 2, 3], [1, 1, 1], color=SECOND)
        axes.legend()
        return inline(figure, name, description)


def test_a_drawing_is_an_element_without_addresses_styles_or_colours_of_its_own():
    drawing = draw("a", "<b> & more")
    root = ET.fromstring(drawing)
    assert root.get("viewBox") == "0 0 390 200"
    assert root.get("aria-label") == "<b> & more"
    assert "://" not in drawing
    assert "<style" not in drawing
    assert "font-family" not in drawing
    assert not any(colour in drawing for colour in ROLES)
    assert {"var(--first)", "var(--second)", "var(--ink)"} <= set(re.findall(r"var\(--\w+\)", drawing))
    assert "<one>" in [text.text for text in root.iter("text")]


def test_ids_are_unique_over_drawings_and_each_reference_has_its_target():
    drawings = [draw("a"), draw("b")]
    ids = [set(re.findall(r'\bid="([^"]+)"', drawing)) for drawing in drawings]
    assert not ids[0] & ids[1]
    for known, drawing in zip(ids, drawings, strict=True):
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', drawing))
        assert used
        assert used <= known


def test_a_drawing_is_the_same_each_time():
    assert draw("a") == draw("a")
