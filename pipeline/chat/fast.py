"""gigatoken, an optional package: byte-pair encoding a hundred times as fast as Hugging Face's `tokenizers`.

It is young, so whoever encodes with it compares the ids with those of `tokenizers` first (`pipeline.tokenize.fast`).
"""

from __future__ import annotations

import json
import threading
import unicodedata
from collections.abc import Sequence

import numpy as np
import tokenizers

_ASCII = bytes(range(128))

REMEMBERED = 2**26
"""Characters after which an encoder starts anew: gigatoken remembers every word that it has met, with text of nothing
but new words some 10 bytes per character."""


class FastEncoder:
    """Text to ids by gigatoken, in the calling thread, one text at a time: for many at once it would import `awkward`,
    which takes as long as encoding 50 MB.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """
        Args:
            backend: the same tokenizer. Its special tokens are left out: gigatoken would find them in plain text.

        Raises:
            ValueError: gigatoken is not installed, or does not take this tokenizer.
        """
        try:
            from gigatoken.gigatoken_rs import load_hf_json
        except ImportError as error:
            raise ValueError(f"gigatoken cannot be imported ({error})") from None
        try:
            definition = _without_special_tokens(backend.to_str())
            self._fast = load_hf_json(definition)
        except Exception as error:  # the binding raises nothing narrower
            raise ValueError(f"gigatoken does not take this tokenizer: {str(error).splitlines()[0]}") from None
        self._backend = backend
        self._anew = lambda: load_hf_json(definition)
        self._met = 0
        self._turn = threading.Lock()
        """It holds the interpreter: threads that wrestle for that between texts take longer than one."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        with self._turn:
            return [self._ids(text).tolist() for text in texts]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts one after another (n,) uint32, and how many each has (texts,) int64."""
        with self._turn:
            found = [self._ids(text) for text in texts]
        lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        return np.concatenate([np.empty(0, dtype=np.uint32), *found]), lengths

    def _ids(self, text: str) -> np.ndarray:
        if text.isascii() or not _has_new_characters(text):
            if self._met > REMEMBERED:
                self._fast, self._met = self._anew(), 0
            self._met += len(text)
            return self._fast.encode(text)
        return np.array(self._backend.encode(text, add_special_tokens=False).ids, dtype=np.uint32)


def _has_new_characters(text: str) -> bool:
    """Whether there are any that Python does not know: gigatoken and `tokenizers` have tables of different versions of
    Unicode, later than Python's, and differ on which of these are letters.
    """
    others = text.encode().translate(None, _ASCII).decode()
    return any(unicodedata.category(character) == "Cn" for character in set(others))


def _without_special_tokens(tokenizer_json: str) -> str:
    """Only the added tokens are parsed: the vocabulary after them is large."""
    head, key, rest = tokenizer_json.partition('"added_tokens":')
    tokens, end = json.JSONDecoder().raw_decode(rest)
    return head + key + json.dumps([token for token in tokens if not token["special"]]) + rest[end:]
