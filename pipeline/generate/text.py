"""Text out of tokens that come one by one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from pipeline.chat.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_INCOMPLETE = "\ufffd"
"""What the bytes of half a character decode to."""


class TextStream:
    """Decodes tokens as they come, up to the first stop string.

    What may still change is held back: bytes of an incomplete character, and the beginning of a stop string. All
    that `feed` and `rest` return, put together, is the text of all tokens, cut before the stop string.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.stopped = False
        self._silent = _silent(tokenizer)
        self._ids: list[int] = []
        self._start = self._done = 0  # decoded again as context, because a word's space may depend on it; returned
        self._held = ""

    def feed(self, token: int) -> str:
        """The text that this token makes certain."""
        self._ids.append(token)
        if token in self._silent:
            return ""
        piece = self._decode_new()
        return "" if piece.endswith(_INCOMPLETE) else self._pass_on(piece)

    def rest(self) -> str:
        """What was held back, when no token follows."""
        if self.stopped:
            return ""
        certain = self._pass_on(self._decode_new())
        held, self._held = self._held, ""
        return certain + held

    def _decode_new(self) -> str:
        before = self.tokenizer.decode(self._ids[self._start : self._done])
        return self.tokenizer.decode(self._ids[self._start :])[len(before) :]

    def _pass_on(self, piece: str) -> str:
        if piece:  # a control token is no context
            self._start = self._done
        self._done = len(self._ids)
        text = self._held + piece
        found = [place for place in (text.find(stop) for stop in self.stop) if place >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        certain = len(text) - max((_begun(text, stop) for stop in self.stop), default=0)
        self._held = text[certain:]
        return text[:certain]


@lru_cache(maxsize=1)
def _silent(tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that make no text certain: control tokens, which have none, and SentencePiece's single bytes.

    A run of bytes is decoded as a whole, through control tokens: all of it is text, or none.
    """
    backend = tokenizer.backend
    controls = {token for token, added in backend.get_added_tokens_decoder().items() if added.special}
    return frozenset(controls | {token for name, token in backend.get_vocab().items() if _BYTE.fullmatch(name)})


def _begun(text: str, stop: str) -> int:
    """Characters at the end of `text` that `stop` begins with."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
