"""Tokenizers of other formats -> tokenizer.json, so that all that follows knows one format.

| file                          | format                                                                      |
|-------------------------------|-----------------------------------------------------------------------------|
| `*.model`                     | SentencePiece, BPE or unigram                                               |
| `cl100k_base.tiktoken`, …     | tiktoken's ranks, of an encoding in `pipeline.tokenize.from_tiktoken.KNOWN` |
| `*.tiktoken`, `encoding.json` | tiktoken's ranks, and beside them their pattern and special tokens          |

Nothing is taken on trust: the library that the file comes from encodes a sample of the training text, and texts that
are known to be awkward, and its ids must be those of the converted tokenizer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from pipeline.chat.tokenizer import (
    CHAT_TEMPLATE_FILE,
    CONFIG_FILE,
    TOKENIZER_FILE,
    copy_tokenizer,
    load_tokenizer,
)
from pipeline.tokenize.converted import AWKWARD, Converted

PROOF_BYTES = 10**6
"""Of the training text, that a conversion is proven with."""

SENTENCEPIECE, TIKTOKEN = ".model", ".tiktoken"


def foreign_file(path: Path) -> Path | None:
    """The file of another format that `path` is, or that lies in the directory `path` without a tokenizer.json.

    Raises:
        ValueError: the directory has several.
    """
    if not path.is_dir():
        return path if path.suffix in (SENTENCEPIECE, TIKTOKEN) else None
    if (path / TOKENIZER_FILE).is_file():
        return None
    found = sorted(file for file in path.iterdir() if file.suffix in (SENTENCEPIECE, TIKTOKEN))
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ValueError(f"{path}: more than one tokenizer there: {names}; name the file")
    return found[0] if found else None


def take_tokenizer(path: Path, directory: Path, texts: Iterable[str]) -> None:
    """Put the tokenizer at `path` into `directory`: byte for byte, or converted if it is of another format.

    Args:
        texts: a sample of what it is to encode.

    Raises:
        ValueError: the file is damaged, or cannot be converted exactly.
    """
    file = foreign_file(path)
    if file is None:
        copy_tokenizer(path, directory)
        return
    converted = _convert(file)
    converted.backend.save(str(directory / TOKENIZER_FILE))
    for name in (CONFIG_FILE, CHAT_TEMPLATE_FILE):
        if (beside := file.with_name(name)).is_file():
            shutil.copyfile(beside, directory / name)
    if not (directory / CONFIG_FILE).exists():
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **converted.names}
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    prove(converted, directory, chain(AWKWARD, texts), file)


def _convert(file: Path) -> Converted:
    """By the library of the format, which takes a while to import."""
    if file.suffix == SENTENCEPIECE:
        from pipeline.tokenize.from_sentencepiece import read
    else:
        from pipeline.tokenize.from_tiktoken import read
    return read(file)


def prove(converted: Converted, directory: Path, texts: Iterable[str], file: Path) -> None:
    """Compare the tokenizer in `directory` with the library that `file` comes from.

    Raises:
        ValueError: the ids of a text differ, or it cannot be used.
    """
    try:
        tokenizer = load_tokenizer(directory)
    except ValueError as error:
        given = str(error).replace(str(directory / TOKENIZER_FILE), str(file))  # which the user knows
        raise ValueError(given.replace(str(directory), str(file.parent))) from None
    for text in texts:
        if converted.is_outside(text):
            continue
        (ours,), theirs = tokenizer.encode([text]), _ids(converted, text, file)
        if ours != theirs:
            at = next(
                (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
            )
            raise ValueError(
                f"{file}: it cannot be converted to {TOKENIZER_FILE} exactly: from token {at} on, "
                f"{text[:60]!r} becomes {ours[at : at + 5]} in place of {theirs[at : at + 5]}; "
                f"convert it with a tool made for this model and give its {TOKENIZER_FILE}"
            )


def _ids(converted: Converted, text: str, file: Path) -> list[int]:
    """What the library of the format makes of a text."""
    try:
        return converted.oracle(text)
    except BaseException as error:  # a panic in Rust, as of a pattern that matches nothing, is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{file}: its own library breaks down on {text[:60]!r}: {error}") from None
