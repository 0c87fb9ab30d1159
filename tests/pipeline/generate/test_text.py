"""Text that comes token by token."""

from __future__ import annotations

import random

import pytest

from pipeline.chat.tokenizer import Tokenizer, load_tokenizer
from pipeline.generate.text import TextStream


@pytest.fixture(scope="module")
def tokenizer(model_dir) -> Tokenizer:
    return load_tokenizer(model_dir)


def pieces(tokenizer: Tokenizer, ids: list[int], *stop: str) -> list[str]:
    text, found = TextStream(tokenizer, stop), []
    for token in ids:
        found.append(text.feed(token))
        if text.stopped:
            return found
    return [*found, text.rest()]


def test_the_pieces_are_the_text_and_no_character_comes_in_halves(tokenizer):
    words = "what 日本語 — ünï\U0001f600 said"
    ids = tokenizer.encode([words])[0]
    found = pieces(tokenizer, ids)
    assert "".join(found) == words
    assert not any("\ufffd" in piece for piece in found)
    assert "".join(found[:3]) != ""  # it does not wait for the end


def test_any_tokens_give_the_text_that_they_decode_to(tokenizer):
    draw = random.Random(0)
    for _ in range(200):
        ids = [draw.randrange(tokenizer.vocab_size) for _ in range(30)]
        assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("stop", [["said"], ["nothing", "id b"], ["aid", "said"], ["— "], ["w"]])
def test_the_text_ends_before_the_first_stop_string(tokenizer, stop):
    words = "what was said before — and said again"
    found = "".join(pieces(tokenizer, tokenizer.encode([words])[0], *stop))
    assert found == words[: min(words.find(s) for s in stop if s in words)]


def test_what_may_begin_a_stop_string_is_held_back_and_given_when_it_does_not(tokenizer):
    text = TextStream(tokenizer, ["\n\nUser:"])
    shown = "".join(text.feed(token) for token in tokenizer.encode(["said\n\nUs"])[0])
    assert shown == "said"
    shown += "".join(text.feed(token) for token in tokenizer.encode(["ed"])[0])
    assert shown == "said\n\nUsed"
    assert not text.stopped
    assert "".join(pieces(tokenizer, tokenizer.encode(["said\n\nUs"])[0], "\n\nUser:")) == "said\n\nUs"
