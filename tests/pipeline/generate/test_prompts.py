"""Prompts from files."""

from __future__ import annotations

import pytest

from pipeline.generate.prompts import read_prompts


def test_lines_of_text_and_of_json(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n two \r\nthree", encoding="utf-8")
    assert read_prompts(tmp_path / "a.txt") == ["one", " two ", "three"]
    (tmp_path / "a.jsonl").write_text('{"prompt": "one\\nmore", "id": 1}\n\n{"prompt": "ü\u2028"}\n', encoding="utf-8")
    assert read_prompts(tmp_path / "a.jsonl") == ["one\nmore", "ü\u2028"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n\n", "it holds no prompt"),
        (b"\xff", "not UTF-8"),
        (b'{"prompt": "a"}\n{', "a.jsonl:2: not JSON"),
        (b'"a"', "a.jsonl:1: expected an object"),
        (b'{"text": "a"}', "a.jsonl:1: field prompt is missing"),
        (b'{"prompt": 1}', "a.jsonl:1: field prompt must be a string"),
        (b'{"prompt": " "}', "a.jsonl:1: its prompt is empty"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(tmp_path / "a.jsonl")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_prompts(tmp_path / "a.txt")


def test_the_mark_that_some_editors_put_first_is_no_text(tmp_path):
    for name, content in (("a.txt", "a"), ("a.jsonl", '{"prompt": "a"}')):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert read_prompts(tmp_path / name) == ["a"]
