"""However a file is cut into blocks and ranges, its lines come out once each, in order, with their numbers."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest.lines import Line, Range, count_newlines, count_ranges, cut_lines, split_lines
from pipeline.ingest.pieces import Bounds
from pipeline.ingest.text import Text
from pipeline.sources import File

TEXTS = st.lists(
    st.sampled_from([b"\n", b"\n\n", b"\n" * 30, b"a", b"bc" * 9, b"\r\n", b" ", b" \t\n\v\f\n", b"x" * 40]),
    max_size=40,
).map(b"".join)


def naive(text: bytes) -> list[bytes]:
    """The lines of a text, with their newlines."""
    *lines, rest = text.split(b"\n")
    return [line + b"\n" for line in lines] + [rest] * bool(rest)


def one_by_one(lines: Iterable[Line], limit: int) -> Iterator[Line]:
    """Blank lines that came together, apart; with a look at what may come together."""
    for line in lines:
        if line.data.count(b"\n") < 2:
            yield line
            continue
        assert not line.data.strip()
        assert line.size == len(line.data)
        assert line.offset // limit == (line.offset + line.size - 1) // limit
        offset = line.offset
        for index, part in enumerate(naive(line.data)):
            yield Line(offset, line.number + index, len(part), part)
            offset += len(part)


@settings(max_examples=300)
@given(text=TEXTS, sizes=st.lists(st.integers(1, 60), min_size=1), limit=st.integers(1, 50), start=st.integers(0, 99))
def test_lines_do_not_depend_on_the_blocks(text: bytes, sizes: list[int], limit: int, start: int) -> None:
    blocks, place = [], 0
    while place < len(text):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(text[place : place + size])
        place += size
    number, lines = 1, []
    for offset, size, count, data in split_lines(blocks, limit, start):
        lines.append(Line(offset, number, size, data))
        number += count
    expected = naive(text)
    assert number == len(expected) + 1
    found = list(one_by_one(lines, limit))
    assert [(line.number, line.size) for line in found] == [(i + 1, len(line)) for i, line in enumerate(expected)]
    assert [line.offset for line in found] == [start + sum(map(len, expected[:i])) for i in range(len(expected))]
    for line, (_, _, size, data) in zip(expected, found, strict=True):
        assert data == line if size <= limit else line.startswith(data)
        assert len(data) <= limit + max(sizes) + 1


def written(text: bytes, tmp_path_factory: pytest.TempPathFactory) -> File:
    path: Path = tmp_path_factory.getbasetemp() / "ranges"
    path.write_bytes(text)
    return File(str(path), "a", "input", None, len(text))


@settings(max_examples=300, deadline=None)
@given(text=TEXTS.filter(bool), step=st.integers(1, 60), limit=st.sampled_from([60, 1000]))
def test_ranges_own_each_line_once(
    text: bytes, step: int, limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file, bounds = written(text, tmp_path_factory), Bounds(limit, expansion=1)
    whole = list(one_by_one(Range(file, 0, None, 1).lines(bounds), limit))
    if limit > len(text):
        assert [line.data for line in whole] == naive(text)
    assert [line.number for line in whole] == list(range(1, len(whole) + 1))
    counts = [count_newlines(file, start, end) for start, end in count_ranges(file, step)]
    ranges = list(cut_lines(file, step, counts))
    assert [line for part in ranges for line in one_by_one(part.lines(bounds), limit)] == whole
    assert all(part.start == 0 or any(True for _ in part.lines(bounds)) for part in ranges)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS.filter(bool), limit=st.integers(1, 60))
def test_a_document_has_the_lines_that_start_in_a_multiple_of_the_limit(
    text: bytes, limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected: dict[int, tuple[str, str]] = {}
    offset = 0
    for number, line in enumerate(naive(text), start=1):
        if len(line) <= limit:
            name, before = expected.get(offset // limit, (f"a:{number}", ""))
            expected[offset // limit] = (name, before + line.decode())
        offset += len(line)
    outcomes = Text(written(text, tmp_path_factory), 0, None, 1).read(Bounds(limit, expansion=1))
    documents = [(outcome[0], outcome[4]) for outcome in outcomes if hasattr(outcome, "content")]
    assert documents == list(expected.values())
