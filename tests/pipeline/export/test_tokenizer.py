"""transformers reads the exported tokenizer, and its chat template makes the ids that the model was trained on."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from pipeline.chat.template import template_for
from pipeline.chat.tokenizer import load_tokenizer
from pipeline.chat.turns import TurnTemplate

WORDS = ["the ", " state", "what it saw", "\n", "  ", "42", "naïve", "🙂", "x=1", "{{ x }}", "'\"\\"]
PLAIN = ["The ", "state", " saw.", "x", "1", "return"]


def ids(theirs, messages, **options) -> list[int]:
    return theirs.apply_chat_template(messages, tokenize=True, return_dict=False, **options)


def conversations(words: list[str]):
    rng = random.Random(0)
    for _ in range(200):
        roles = (["system"] if rng.random() < 0.3 else []) + ["user", "assistant"] * rng.randint(1, 3)
        yield [{"role": role, "content": "".join(rng.choices(words, k=rng.randint(0, 6)))} for role in roles]


def assert_same_ids(out: Path, words: list[str]) -> None:
    theirs = AutoTokenizer.from_pretrained(out)
    ours, exported = TurnTemplate.for_tokenizer(load_tokenizer(out)), template_for(load_tokenizer(out))
    for messages in conversations(words):
        assert ids(theirs, messages) == ours.encode(messages)[0].tolist()
        for trained, again in zip(ours.encode(messages), exported.encode(messages), strict=True):
            assert trained.tolist() == again.tolist()
        assert ids(theirs, messages[:-1], add_generation_prompt=True) == ours.encode_prompt(messages[:-1])


@pytest.mark.parametrize("format", ["native", "hf-nemotron-h", "megatron"])
def test_the_chat_template_makes_our_ids(exported, format):
    assert_same_ids(exported(format), WORDS)


def test_turns_in_plain_text(plain_text_tokenizer, exported):
    assert_same_ids(exported(), PLAIN)


def test_special_tokens_and_text(exported):
    out = exported()
    theirs, ours = AutoTokenizer.from_pretrained(out), load_tokenizer(out)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (ours.bos_id, ours.eos_id, ours.pad_id)
    for text in ("The state  carries\n", "naïve 🙂 , don't . x"):
        assert theirs(text)["input_ids"] == ours.encode([text])[0]
        assert theirs.decode(theirs(text)["input_ids"]) == text
    answer = theirs.encode("<|assistant|>yes<|end|>")
    assert theirs.decode(answer, skip_special_tokens=True) == "yes"


def test_an_unknown_role_is_refused(exported):
    theirs = AutoTokenizer.from_pretrained(exported())
    with pytest.raises(Exception, match="role tool; known roles are system, user, assistant"):
        ids(theirs, [{"role": "tool", "content": "x"}])


def test_a_config_that_came_along_is_kept_and_our_template_lies_beside_it(project, exported):
    given = (
        '{"eos_token": {"__type": "AddedToken", "content": "<|end|>"},\n "tokenizer_class": "PreTrainedTokenizerFast"}'
    )
    Path("artifacts/finetune/model/tokenizer_config.json").write_text(given)
    out = exported()
    assert (out / "tokenizer_config.json").read_text() == given
    assert AutoTokenizer.from_pretrained(out).eos_token == "<|end|>"
    messages = [{"role": "user", "content": "hi"}]
    jinja = (out / "chat_template.jinja").read_text()
    assert AutoTokenizer.from_pretrained(out).chat_template == jinja
    assert "<|user|>hi" in AutoTokenizer.from_pretrained(out).apply_chat_template(messages, tokenize=False)


def test_a_template_that_came_along_is_kept(project, exported):
    given = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages[0]['content'] }}"})
    Path("artifacts/finetune/model/tokenizer_config.json").write_text(given)
    out = exported()
    assert not (out / "chat_template.jinja").exists()
    assert (out / "tokenizer_config.json").read_text() == given
