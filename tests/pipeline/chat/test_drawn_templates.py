"""Ids and mask of random conversations by random templates and tokenizers, against an oracle of single characters."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.chat.jinja import JinjaTemplate
from pipeline.chat.schemas import ROLES, Message
from pipeline.chat.template import template_for
from pipeline.chat.tokenizer import SPECIAL_TOKENS
from pipeline.chat.turns import TurnTemplate
from tests.pipeline.chat.drawn import NAMES, RECIPES, Form, Recipe, conversations, forms, saved, trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn")


def expected(form: Form, recipe: Recipe, said: list[Message]) -> list[tuple[int, bool]]:
    """The tokenizer itself over the whole text; a token is learned if one of its characters is.

    Of a control token the characters are its name, though it takes the white space around it; a token without
    characters stands for the next one.
    """
    text, learned = form.written(said)
    backend = tokenizers.Tokenizer.from_str(trained(recipe, form.names))
    backend.post_processor = None  # which leaves white space out of the offsets
    found = backend.encode(text, add_special_tokens=False)
    pairs = []
    for token, (start, stop) in zip(found.ids, found.offsets, strict=True):
        if (name := text[start:stop].strip()) in form.names:
            start = text.index(name, start)
            stop = start + len(name)
        pairs.append((token, any(learned[start : max(stop, start + 1)])))
    return pairs


def says_a_name(form: Form, said: list[Message]) -> bool:
    """Whether the text has a control token's name that the template did not write; test_jinja.py has those."""
    silent: list[Message] = [{"role": message["role"], "content": "x"} for message in said]
    texts = form.written(said)[0], form.written(silent)[0]
    return any(texts[0].count(name) != texts[1].count(name) for name in form.names)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(form=forms(), recipe=RECIPES, said=conversations())
def test_ids_and_mask_are_those_of_the_characters(
    folder: Path, form: Form, recipe: Recipe, said: list[Message]
) -> None:
    assume(not says_a_name(form, said))
    template = template_for(saved(folder, recipe, form.names, form.jinja()))
    assert isinstance(template, JinjaTemplate)
    ids, mask = template.encode(said)
    assert list(zip(ids.tolist(), mask.tolist(), strict=True)) == expected(form, recipe, said)
    ends = template.tokenizer.control_id(form.closings["assistant"][0])
    answers = sum(message["role"] == "assistant" for message in said)
    assert (ids[mask] == ends).sum() == answers


@settings(max_examples=300, deadline=None, derandomize=True)
@given(form=forms(flawed=True), recipe=RECIPES, said=conversations())
def test_a_template_that_does_not_mark_each_answer_and_nothing_else_is_refused(
    folder: Path, form: Form, recipe: Recipe, said: list[Message]
) -> None:
    if form.flaw == "by place" and form.system == "merged":  # in an orderly conversation the places are right
        roles = [message["role"] for message in said if message["role"] != "system"]
        assume(roles != ["user", "assistant"] * (len(roles) // 2))
    template = template_for(saved(folder, recipe, form.names, form.jinja()))
    with pytest.raises(ValueError, match="generation"):
        template.encode(said)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(names=st.sampled_from([NAMES[0], SPECIAL_TOKENS]), recipe=RECIPES, said=conversations())
def test_turns_without_a_template_are_their_parts(
    folder: Path, names: tuple[str, ...], recipe: Recipe, said: list[Message]
) -> None:
    template = template_for(saved(folder, recipe, names, None))
    assert isinstance(template, TurnTemplate)
    backend = tokenizers.Tokenizer.from_str(trained(recipe, names))
    backend.encode_special_tokens = True

    def words(text: str) -> list[int]:
        return backend.encode(text, add_special_tokens=False).ids

    pairs = [(backend.token_to_id(names[0]), False)]
    for message in said:
        role, is_answer = message["role"], message["role"] == "assistant"
        if names == SPECIAL_TOKENS:
            opening = [backend.token_to_id(SPECIAL_TOKENS[1 + ROLES.index(role)])]
            closing = [backend.token_to_id("<|end|>")]
        else:
            opening = words(f"{role.capitalize()}:\n")
            closing = [backend.token_to_id("</s>")] if is_answer else words("\n\n")
        pairs += [(token, False) for token in opening]
        pairs += [(token, is_answer) for token in [*words(message["content"]), *closing]]
    ids, mask = template.encode(said)
    assert list(zip(ids.tolist(), mask.tolist(), strict=True)) == pairs
