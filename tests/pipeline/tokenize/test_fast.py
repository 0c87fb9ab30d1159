"""gigatoken beside Hugging Face's tokenizers: the same ids, or it is not used."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from pipeline.chat.fast import FastEncoder
from pipeline.chat.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer
from pipeline.tokenize.fast import ONE_IN, awkward_text_that_differs, sampled_text_that_differs

pytest.importorskip("gigatoken")

WORDS = [
    "the ",
    " cat",
    "\n",
    "   ",
    "42",
    "na\u00efve",
    "\U0001f642",
    "e\u0301",
    "don't",
    "\x00",
    "\u3000",
    *SPECIAL_TOKENS,
]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map("".join), max_size=5)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(["the cat don't <|end|> the end endoftext user"] * 3, trainer)
    path = tmp_path_factory.mktemp("fast") / "tokenizer.json"
    backend.save(str(path))
    return load_tokenizer(path)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(texts=TEXTS)
def test_the_ids_are_the_same(tokenizer: Tokenizer, texts: list[str]) -> None:
    fast = tokenizer.accelerated()
    assert fast.encode(texts) == tokenizer.encode(texts)
    for ours, theirs in zip(fast.encode_flat(texts), tokenizer.encode_flat(texts), strict=True):
        assert np.array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_starting_anew_changes_no_id(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = FastEncoder(tokenizer.backend)
    texts = ["the cat", "the cat sat", "na\u00efve 42", "the cat"]
    first = encoder._fast
    expected = encoder.encode(texts)
    assert encoder._fast is first
    monkeypatch.setattr("pipeline.chat.fast.REMEMBERED", 10)
    assert encoder.encode(texts) == expected
    assert encoder._fast is not first


def test_it_is_used_where_it_agrees(tokenizer: Tokenizer) -> None:
    assert awkward_text_that_differs(tokenizer.accelerated()) is None
    assert sampled_text_that_differs(tokenizer.accelerated(), pl.Series(["the cat", "don't"] * 200)) is None


def test_a_single_other_id_is_found(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_one(self: FastEncoder, texts: list[str]) -> Any:
        return [[token + (text in wrong) for token in ids] for text, ids in zip(texts, right(self, texts), strict=True)]

    right = FastEncoder.encode
    wrong = {"the last", "a <|user|> b<|user|>"}
    monkeypatch.setattr(FastEncoder, "encode", off_by_one)
    assert awkward_text_that_differs(tokenizer.accelerated()) == "a <|user|> b<|user|>"
    texts = pl.Series(["the cat"] * ONE_IN + ["the last"])
    assert sampled_text_that_differs(tokenizer.accelerated(), texts) == "the last"
    assert sampled_text_that_differs(tokenizer.accelerated(), texts[:-1]) is None


def test_a_tokenizer_that_it_does_not_know(tmp_path: Path, tokenizer: Tokenizer) -> None:
    content = json.loads(tokenizer.backend.to_str())
    split = {"type": "Split", "pattern": {"Regex": r"\p{Lu}\p{Ll}*|."}, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, content["pre_tokenizer"]]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="gigatoken does not take this tokenizer: "):
        load_tokenizer(tmp_path).accelerated()


def test_every_character_between_others(tokenizer: Tokenizer) -> None:
    characters = [chr(code) for code in chain(range(0xD800), range(0xE000, 0x20000), range(0x20000, 0x110000, 64))]
    texts = [f"a{char}b {char} 1{char}2\n{char}!{char}'s{char}\n " for char in characters]
    fast = tokenizer.accelerated()
    for char, ours, theirs in zip(characters, fast.encode(texts), tokenizer.encode(texts), strict=True):
        assert ours == theirs, f"U+{ord(char):04X}"
