"""Answers: their prompts, one by one and in batches, from states."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from model import HybridConfig, HybridLM, generate, prefill, save_pretrained
from model.sampling import Sampling
from pipeline.chat.jinja import JinjaTemplate
from pipeline.export.tokenizer import jinja_template
from pipeline.generate.session import open_session

TEXTS = ["what", "what follows from what was said before", "ünï", "said " * 30, "before"]


def text_of(session, prompt, **options):
    ids = session.prompt_ids(prompt, **options)
    return "".join(session.answer(ids))


def test_an_answer_is_what_the_model_generates_from_the_template(open_with):
    session = open_with()
    ids = session.template.encode_prompt([{"role": "system", "content": "before"}, {"role": "user", "content": "what"}])
    out = generate(session.decoder, torch.tensor([ids]), max_new_tokens=24, eos_token_id=session.end_id)
    new = out[0, len(ids) :].tolist()
    assert text_of(session, "what", system="before") == session.tokenizer.decode(new)


def test_raw_continues_the_text(open_with):
    session = open_with(raw=True)
    assert session.prompt_ids("what") == [session.tokenizer.bos_id, *session.tokenizer.encode(["what"])[0]]
    assert session.end_id == session.tokenizer.eos_id


@pytest.mark.parametrize("options", [{}, {"sampling": Sampling(temperature=1.0), "seed": 4}])
def test_answers_together_are_the_answers_alone(open_with, options):
    session = open_with(**options)
    prompts = [session.prompt_ids(text) for text in TEXTS]
    together = session.answers(prompts, None, first=0)
    assert [session.answers([ids], None, first=i)[0] for i, ids in enumerate(prompts)] == together
    assert together[0] == "".join(session.answer(prompts[0]))
    stop = [together[1][3:5], together[3][6:8]]
    cut = open_with(**options, stop=stop).answers(prompts, None, first=0)
    for whole, short in zip(together, cut, strict=True):
        found = [whole.find(s) for s in stop if s in whole]
        assert short == (whole[: min(found)] if found else whole)


def test_the_end_token_ends_an_answer_and_is_no_text(open_with, monkeypatch):
    session = open_with()
    prompts = [session.prompt_ids(text) for text in TEXTS[:2]]
    made = generate(session.decoder, torch.tensor([prompts[0]]), max_new_tokens=24)[0, len(prompts[0]) :].tolist()
    monkeypatch.setitem(session.template.closings, "assistant", [made[5]])
    until = made[: made.index(made[5])]
    answer = session.answer(prompts[0])
    assert "".join(answer) == session.tokenizer.decode(until)
    assert answer.ids == [*prompts[0], *until, made[5]]
    assert session.answers(prompts, None, first=0)[0] == session.tokenizer.decode(until)


@pytest.mark.parametrize("raw", [False, True])
def test_a_context_that_was_read_before_changes_no_answer(open_with, raw):
    session = open_with(raw=raw)
    system = None if raw else "what was said"
    context = session.context_ids(system, "before" if raw else None)
    state = prefill(session.decoder.model, torch.tensor([context]))
    prompts = [session.prompt_ids(text, before=context) for text in TEXTS]
    if not raw:
        assert prompts == [session.prompt_ids(text, system) for text in TEXTS]
    assert session.answers(prompts, state, first=0) == session.answers(prompts, None, first=0)


def test_a_tokenizer_of_another_model_is_refused(model_dir, tmp_path):
    save_pretrained(HybridLM(dataclasses.replace(HybridConfig.preset("tiny"), vocab_size=200)), tmp_path)
    shutil.copy(model_dir / "tokenizer.json", tmp_path)
    options = {"raw": False, "max_new_tokens": 1, "sampling": Sampling(), "stop": [], "seed": None}
    with pytest.raises(ValueError, match="the model knows 200 tokens, its tokenizer"):
        open_session(tmp_path, torch.device("cpu"), **options)


def test_a_chat_template_beside_the_tokenizer_is_used(open_with, model_dir, tmp_path):
    ours = open_with()
    shutil.copytree(model_dir, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(jinja_template(ours.template))
    options = {"raw": False, "max_new_tokens": 24, "sampling": Sampling(), "stop": [], "seed": None}
    theirs = open_session(tmp_path / "model", torch.device("cpu"), **options)
    assert isinstance(theirs.template, JinjaTemplate)
    assert (theirs.end_id, theirs.closing) == (ours.end_id, ours.closing)
    for text in TEXTS:
        assert theirs.prompt_ids(text, "said") == ours.prompt_ids(text, "said")
        before = ours.context_ids("before", "what")
        assert theirs.context_ids("before", "what") == before
        assert theirs.prompt_ids(text, before=before) == ours.prompt_ids(text, before=before)
