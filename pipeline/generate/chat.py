"""A conversation on the terminal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from model import DecodeState
from pipeline.generate.session import Session


def chat(session: Session, system: str | None, state: DecodeState | None) -> None:
    """Answer line by line until Ctrl-D; earlier turns are in the state and not read again."""
    print("Ctrl-C stops an answer, Ctrl-D ends.")
    said = [] if state is None else state.ids[0].tolist()
    while True:
        try:
            line = input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if not line.strip():
            continue
        answer = session.answer(session.prompt_ids(line, system, said), state)
        with _ctrl_c() as pressed:
            for piece in answer:
                print(piece, end="", flush=True)
                if pressed():
                    break
        print()
        said, state = answer.ids, answer.state()


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed in this block, so that a token is made to its end; a second one interrupts at once."""
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)
