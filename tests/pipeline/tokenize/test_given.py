"""The stage with a tokenizer of another format, a chat template and the fast encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken

from pipeline.chat.fast import FastEncoder
from pipeline.chat.jinja import JinjaTemplate
from pipeline.chat.template import template_for
from pipeline.chat.tokenizer import load_tokenizer
from pipeline.params import TokenizeParams
from pipeline.rows import CONTEXT, NEVER, RESPONSE
from pipeline.shards import Local
from pipeline.tokenize import bpe, encoding
from tests.pipeline.chat.test_jinja import CHATML, WITHOUT
from tests.pipeline.tokenize.test_foreign import KINDS, sentencepiece_model
from tests.pipeline.tokenize.test_tokenize import PARAMS, SHORT, failing, flat, random_clean, run, sequences


@pytest.fixture
def chatml(tmp_path: Path) -> TokenizeParams:
    """A tokenizer with ChatML's control tokens, and a template beside it that is to be named."""
    backend = bpe.train_bpe(["the cat", "user assistant"], 300)
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in ("<|im_start|>", "<|im_end|>")])
    backend.save(str(tmp_path / "given.json"))
    (tmp_path / "turns.jinja").write_text(CHATML)
    return replace(
        PARAMS, seqlen=512, tokenizer=str(tmp_path / "given.json"), chat_template=str(tmp_path / "turns.jinja")
    )


def test_a_chat_template_makes_the_rows_and_travels_along(tmp_path: Path, chatml: TokenizeParams) -> None:
    clean = {"conversations": random_clean()["conversations"]}
    tokens, manifest = run(tmp_path, clean, chatml)
    assert (tokens / "tokenizer" / "chat_template.jinja").read_text() == CHATML
    template = template_for(load_tokenizer(tokens / "tokenizer"))
    assert isinstance(template, JinjaTemplate)
    expected = []
    for messages in flat(clean["conversations"]["test"]):
        ids, answer = template.encode(messages)
        mask = np.where(answer, RESPONSE, CONTEXT)
        mask[0] = NEVER
        expected.append((ids.tolist(), mask.tolist()))
    assert sorted(sequences(tokens / "conversations" / "test")) == sorted(expected)
    assert manifest["tokenizer"]["end_id"] == template.tokenizer.control_id("<|im_end|>")


def test_a_template_without_a_mask_stops_conversations_but_not_documents(
    tmp_path: Path, chatml: TokenizeParams
) -> None:
    Path(chatml.chat_template).write_text(WITHOUT)
    assert "has no {% generation %} block" in failing(tmp_path / "one", random_clean(), chatml)
    _, manifest = run(tmp_path / "two", {"documents": random_clean()["documents"]}, chatml)
    assert manifest["documents"]["train"]["rows"] > 0


def test_a_conversation_that_the_template_refuses_is_named(tmp_path: Path, chatml: TokenizeParams) -> None:
    refusing = "{% if messages[0].content == 'no' %}{{ raise_exception('not this one') }}{% endif %}"
    Path(chatml.chat_template).write_text(refusing + CHATML)
    clean = random_clean()
    clean["conversations"]["train"][2][7] = [{"role": "user", "content": "no"}, {"role": "assistant", "content": "b"}]
    said = failing(tmp_path, clean, chatml)
    assert "conversations:train:2:7: the chat template does not take" in said
    assert "not this one" in said


def test_a_template_that_is_no_text_is_named(tmp_path: Path, chatml: TokenizeParams) -> None:
    Path(chatml.chat_template).write_bytes(b"\xff")
    assert f"{chatml.chat_template}: not UTF-8" in failing(tmp_path, random_clean(), chatml)


def test_a_sentencepiece_model_is_converted(tmp_path: Path) -> None:
    file = sentencepiece_model(tmp_path / "given" / "some.model", **KINDS["bpe"])
    params = replace(PARAMS, seqlen=256, tokenizer=str(file.parent))
    tokens, manifest = run(tmp_path, random_clean(), params)
    assert sorted(path.name for path in (tokens / "tokenizer").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert manifest["tokenizer"]["eos_id"] == 2
    again, _ = run(tmp_path / "again", random_clean(), replace(params, tokenizer=str(tokens / "tokenizer")))
    for file in sorted((tokens / "documents").rglob("*.npy")):
        assert file.read_bytes() == (again / file.relative_to(tokens)).read_bytes()


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize("processes", [False, True])
def test_the_bytes_are_the_same_with_the_fast_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], processes: bool
) -> None:
    pytest.importorskip("gigatoken")
    if processes:
        monkeypatch.setattr(encoding, "ENCODED_MEANWHILE", 0)
    plain, _ = run(tmp_path / "plain", random_clean())
    fast, _ = run(tmp_path / "fast", random_clean(), replace(PARAMS, fast=True), executor=Local(2))
    assert contents(fast) == contents(plain)
    told = capsys.readouterr()
    assert "encoding by gigatoken" in told.out
    assert "warning" not in told.err


@pytest.mark.parametrize("kind", ["documents", "conversations"])
def test_the_fast_encoder_is_refused_where_one_shard_shows_other_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    pytest.importorskip("gigatoken")
    clean = random_clean()
    record = clean[kind]["test"][1][0]
    clean[kind]["test"][1][0] = (
        "a rare text" if kind == "documents" else [record[0] | {"content": "a rare text"}, *SHORT]
    )
    plain, _ = run(tmp_path / "plain", clean)

    def without_rare(texts: Sequence[str]) -> list[str]:
        return [text.replace("rare", "raw") for text in texts]

    encode, flat = FastEncoder.encode, FastEncoder.encode_flat
    monkeypatch.setattr(FastEncoder, "encode", lambda self, texts: encode(self, without_rare(texts)))
    monkeypatch.setattr(FastEncoder, "encode_flat", lambda self, texts: flat(self, without_rare(texts)))
    fast, _ = run(tmp_path / "fast", clean, replace(PARAMS, fast=True))
    assert contents(fast) == contents(plain)
    assert "warning: gigatoken makes other ids of 'a rare text': all is encoded by" in capsys.readouterr().err


def test_a_tokenizer_that_the_fast_encoder_does_not_take_is_a_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bpe, "WORDS", r"\p{Lu}\p{Ll}*|.")
    run(tmp_path, random_clean(), replace(PARAMS, fast=True))
    told = capsys.readouterr()
    assert "encoding by `tokenizers`: gigatoken " in told.out  # does not take it, or cannot be imported
    assert not told.err


def test_what_lies_beside_a_tokenizer_counts(tmp_path: Path, chatml: TokenizeParams) -> None:
    clean = {"conversations": random_clean()["conversations"]}
    beside = tmp_path / "chat_template.jinja"
    for words in ("", "{# another #}"):
        beside.write_text(CHATML + words)
        tokens, _ = run(tmp_path, clean, replace(chatml, chat_template="embedded"))
        assert (tokens / "tokenizer" / "chat_template.jinja").read_text() == beside.read_text()
