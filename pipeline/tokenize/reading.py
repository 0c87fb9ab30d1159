"""Read the vocabulary of a tokenizer that is given while something else goes on: nearly all of it is work for Rust."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from threading import Thread


def read_ahead(tokenizer: Path, *, fast: bool) -> None:
    """Start to load a tokenizer.json, or the one in a directory: whoever loads the same in this process then has it, or
    waits for it; and so has who wants it `fast`.

    What is wrong with it is for them to say.
    """
    Thread(target=_read, args=(tokenizer, fast), daemon=True).start()


def _read(path: Path, fast: bool) -> None:
    from pipeline.chat.tokenizer import load_tokenizer

    with suppress(Exception):
        tokenizer = load_tokenizer(path)
        if fast:
            tokenizer.accelerated()
