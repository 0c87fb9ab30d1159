"""However a file is cut into ranges, its lines come out once each, in order, with their numbers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest.lines import Range, count_newlines, count_ranges, cut_lines, split_lines
from pipeline.ingest.pieces import Bounds
from pipeline.sources import File

TEXTS = st.lists(st.sampled_from([b"\n", b"\n\n", b"a", b"bc" * 9, b"\r\n", b" ", b"x" * 40]), max_size=40).map(
    b"".join
)


@given(text=TEXTS, sizes=st.lists(st.integers(1, 12), min_size=1), limit=st.integers(1, 50))
def test_lines_do_not_depend_on_the_blocks(text: bytes, sizes: list[int], limit: int) -> None:
    blocks, start = [], 0
    while start < len(text):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(text[start : start + size])
        start += size
    found = list(split_lines(blocks, limit))
    expected = [part + b"\n" for part in text.split(b"\n")]
    expected[-1] = expected[-1][:-1]
    expected = [line for line in expected if line]
    assert [size for _, size, _ in found] == [len(line) for line in expected]
    assert [offset for offset, _, _ in found] == [sum(map(len, expected[:index])) for index in range(len(expected))]
    for line, (_, _, data) in zip(expected, found, strict=True):
        assert data == line if len(line) <= limit else line.startswith(data)
        assert len(data) <= limit + max(sizes) + 1


@settings(max_examples=150, deadline=None)
@given(text=TEXTS.filter(bool), step=st.integers(1, 60))
def test_ranges_own_each_line_once(text: bytes, step: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "ranges.jsonl"
    path.write_bytes(text)
    file = File(str(path), "a", "input", None, len(text))
    bounds = Bounds(record_bytes=1000, expansion=1)
    whole = list(Range(file, 0, None, 1).lines(bounds))
    assert b"".join(line.data for line in whole) == text
    assert [line.number for line in whole] == list(range(1, len(whole) + 1))
    counts = [count_newlines(file, start, end) for start, end in count_ranges(file, step)]
    ranges = list(cut_lines(file, step, counts))
    assert [line for part in ranges for line in part.lines(bounds)] == whole
    assert all(part.start == 0 or any(True for _ in part.lines(bounds)) for part in ranges)
