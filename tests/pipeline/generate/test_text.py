"""Text that comes token by token."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

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


@pytest.fixture(scope="module")
def with_bytes(tmp_path_factory) -> Tokenizer:
    """Like SentencePiece's: words with their space, and single bytes for what is in no word."""
    words = ["▁", "a", "b", "▁a", "▁b", "é", "ab", "▁ab", "日"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    merges = [("▁", "a"), ("▁", "b"), ("a", "b"), ("▁a", "b")]
    vocab = {name: i for i, name in enumerate(names)}
    backend = Backend(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(parts)
    backend.add_special_tokens(["<s>", "</s>"])
    file = tmp_path_factory.mktemp("bytes") / "tokenizer.json"
    backend.save(str(file))
    return load_tokenizer(file)


def test_runs_of_bytes_give_the_text_that_they_decode_to(with_bytes):
    draw = random.Random(0)
    for _ in range(2000):
        ids = [draw.randrange(with_bytes.vocab_size) for _ in range(draw.randrange(1, 14))]
        assert "".join(pieces(with_bytes, ids)) == with_bytes.decode(ids)
    written = "a日本é ab 𝄞 b🙂"
    assert "".join(pieces(with_bytes, with_bytes.encode([written])[0])) == written


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
