"""From arguments to answers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import torch

from model import DecodeState, load_state, prefill, save_state
from model.sampling import Sampling
from pipeline.generate.chat import chat
from pipeline.generate.prompts import read_prompts
from pipeline.generate.session import Session, open_session
from pipeline.params import Device
from pipeline.training.device import pick_device


def run(arguments: argparse.Namespace) -> None:
    """Answer what the arguments ask.

    Raises:
        ValueError: arguments that do not go together or are out of range, or files that are not what they should be.
    """
    _check(arguments)
    sampling = Sampling(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
    )
    prompts = _prompts(arguments)
    session = open_session(
        arguments.model,
        pick_device(Device.auto),
        raw=arguments.raw,
        max_new_tokens=arguments.max_new_tokens,
        sampling=sampling,
        stop=arguments.stop,
        seed=arguments.seed,
    )
    model = session.decoder.model
    state = None if arguments.state is None else load_state(model, arguments.state)
    if arguments.save_state is not None:
        ids = session.context_ids(arguments.system, prompts[0] if prompts else None)
        save_state(
            model, prefill(model, torch.tensor([ids], device=model.embedding.weight.device)), arguments.save_state
        )
        print(f"{arguments.save_state}: the state after {len(ids)} tokens", file=sys.stderr)
    elif prompts is None:
        chat(session, arguments.system, state)
    elif len(prompts) == 1 and arguments.file is None:
        _say(session, prompts[0], arguments.system, state)
    else:
        _answer_all(session, prompts, arguments.system, state, arguments.batch_size)


def _say(session: Session, prompt: str, system: str | None, state: DecodeState | None) -> None:
    for piece in session.answer(session.prompt_ids(prompt, system, _read(state)), state):
        print(piece, end="", flush=True)
    print(flush=True)


def _answer_all(
    session: Session, prompts: Sequence[str], system: str | None, state: DecodeState | None, batch_size: int
) -> None:
    ids = [session.prompt_ids(prompt, system, _read(state)) for prompt in prompts]
    for first in range(0, len(prompts), batch_size):
        batch = slice(first, first + batch_size)
        for prompt, response in zip(prompts[batch], session.answers(ids[batch], state, first), strict=True):
            print(json.dumps({"prompt": prompt, "response": response}, ensure_ascii=False))
        sys.stdout.flush()


def _read(state: DecodeState | None) -> list[int]:
    return [] if state is None else state.ids[0].tolist()


def _prompts(arguments: argparse.Namespace) -> list[str] | None:
    """What to answer; None where it is to be asked for."""
    if arguments.prompt:
        return arguments.prompt
    if arguments.file is not None:
        return read_prompts(arguments.file)
    if (arguments.save_state is not None and arguments.system is not None) or sys.stdin.isatty():
        return None
    text = sys.stdin.read().rstrip("\n")
    if not text:
        raise ValueError("standard input is empty; give a prompt there, as an argument, or with --file")
    return [text]


def _check(arguments: argparse.Namespace) -> None:
    for name in ("max_new_tokens", "batch_size"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; it must be at least 1")
    if arguments.seed is not None and not 0 <= arguments.seed < 2**62:
        raise ValueError(f"--seed is {arguments.seed}; it must be at least 0 and below 2**62")
    for text in (*arguments.prompt, *arguments.stop, arguments.system or ""):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"{text!r} on the command line is not UTF-8; convert it")
    if "" in arguments.stop:
        raise ValueError("--stop is empty; give the text that ends an answer")
    if "" in arguments.prompt:
        raise ValueError("a prompt is empty; give some text")
    if arguments.prompt and arguments.file is not None:
        raise ValueError("there are prompts as arguments and in --file; give one of them")
    if arguments.system is not None and (arguments.raw or arguments.state is not None):
        other = "--raw has no turns" if arguments.raw else "the conversation of --state has begun already"
        raise ValueError(f"--system opens a conversation, and {other}; leave one of them out")
    if arguments.save_state is not None:
        if arguments.file is not None or len(arguments.prompt) > 1 or arguments.state is not None:
            raise ValueError("--save-state keeps the state after one prompt read from its start; leave the others out")
        if not arguments.prompt and arguments.system is None and sys.stdin.isatty():
            raise ValueError("--save-state has nothing to read; give a prompt or --system")
        if not arguments.save_state.parent.is_dir() or (
            arguments.save_state.exists() and not arguments.save_state.is_file()
        ):
            raise ValueError(
                f"--save-state: {arguments.save_state} cannot be a file; give one in a folder that is there"
            )
