"""Which tokenizer the ids are made with."""

from __future__ import annotations

from pathlib import Path

from pipeline.chat.tokenizer import TOKENIZER_FILE, load_tokenizer
from pipeline.params import EMBEDDED
from pipeline.tokenize.foreign import foreign_file


def given_tokenizer(tokenizer: str, checkpoint: str) -> Path | None:
    """The tokenizer that the parameters name, or None where one is to be trained.

    Args:
        tokenizer: `tokenize.tokenizer`; a path, or `embedded` for the checkpoint's own, or else a new one.
        checkpoint: `model.checkpoint`; a directory, or `embedded` where there is none.

    Raises:
        ValueError: the tokenizer is missing or unusable.
    """
    if tokenizer != EMBEDDED:
        key, path = "tokenize.tokenizer", Path(tokenizer)
    elif checkpoint != EMBEDDED:
        key, path = "model.checkpoint", Path(checkpoint)
        if not (path / TOKENIZER_FILE).is_file() and foreign_file(path) is None:
            raise ValueError(
                f"model.checkpoint: {path} has no {TOKENIZER_FILE}; "
                "set tokenize.tokenizer to the file the checkpoint was trained with"
            )
    else:
        return None
    try:
        if foreign_file(path) is None:
            load_tokenizer(path)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    return path
