"""A conversation on the terminal."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from model import generate
from pipeline.generate.chat import chat
from pipeline.generate.session import Answer


@pytest.fixture
def typed(monkeypatch):
    """What is typed at each prompt; Ctrl-D comes after it."""
    lines: list[str | type[BaseException]] = []

    def read(prompt: str) -> str:
        line = lines.pop(0) if lines else EOFError
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", read)
    return lines


@pytest.fixture
def read_tokens(monkeypatch):
    """How many tokens each call of the whole model reads."""
    counts: list[int] = []

    def watch(session):
        session.decoder.model.register_forward_pre_hook(lambda model, inputs: counts.append(inputs[0].shape[1]))
        return counts

    return watch


def test_earlier_turns_count_and_are_not_read_again(open_with, typed, read_tokens, capsys):
    session = open_with()
    counts = read_tokens(session)
    typed += ["what was said", KeyboardInterrupt, "  ", "before"]
    chat(session, "follows", None)
    printed = capsys.readouterr().out
    read = list(counts)
    ids = session.prompt_ids("what was said", "follows")
    made = generate(session.decoder, torch.tensor([ids]), max_new_tokens=24, eos_token_id=session.end_id)[0].tolist()
    turn = session.prompt_ids("before")[1:]
    said = [*made, *session.closing, *turn] if made[-1] != session.end_id else [*made, *turn]
    first, second = session.tokenizer.decode(made[len(ids) :]), "".join(session.answer(said))
    assert printed == f"Ctrl-C stops an answer, Ctrl-D ends.\n{first}\n\n{second}\n\n"
    assert read == [len(ids), len(said) - len(made) + 1]  # the last token of the answer was not read yet


def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on(open_with, typed, monkeypatch, capsys):
    session = open_with()
    typed += ["what", "before"]
    texts = Answer.__iter__
    pieces: list[int] = []

    def interrupted(answer):
        pieces.append(0)
        for number, piece in enumerate(texts(answer)):
            if number == 2 and len(pieces) == 1:
                os.kill(os.getpid(), signal.SIGINT)
            pieces[-1] += 1
            yield piece

    monkeypatch.setattr(Answer, "__iter__", interrupted)
    before = signal.getsignal(signal.SIGINT)
    chat(session, None, None)
    assert pieces == [3, 25]  # the second answer came to its end
    assert signal.getsignal(signal.SIGINT) is before
