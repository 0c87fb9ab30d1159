"""Turns between control tokens: the form of a conversation where the tokenizer brings no chat template of its own.

With the role tokens of `SPECIAL_TOKENS`:   <bos><|user|>…<|end|><|assistant|>…<|end|>
without them, as plain text:                <bos>User:\\n…\\n\\nAssistant:\\n…<eos>

Each turn is opening + words + closing, encoded apart: the mask is exact by construction, and the ids of a prompt
are the first ids of any conversation that goes on from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.chat.schemas import ROLES, Message
from pipeline.chat.tokenizer import SPECIAL_TOKENS, Tokenizer


@dataclass(frozen=True)
class TurnTemplate:
    """One of the two `ChatTemplate`s; the other is `pipeline.chat.jinja.JinjaTemplate`."""

    tokenizer: Tokenizer
    openings: dict[str, list[int]]
    """By role: the ids before a turn's words."""
    closings: dict[str, list[int]]
    """By role: the ids after them; the assistant's is the one token that stops generation."""

    @classmethod
    def for_tokenizer(cls, tokenizer: Tokenizer) -> TurnTemplate:
        """The form with role tokens where `tokenizer` has all of them, else the plain-text form."""
        *roles, end = (tokenizer.control_id(name) for name in SPECIAL_TOKENS[1:])
        if end is not None and None not in roles:
            openings = {role: [token] for role, token in zip(ROLES, roles, strict=True) if token is not None}
            return cls(tokenizer, openings, {role: [end] for role in ROLES})
        *headers, gap = tokenizer.encode([*(f"{role.capitalize()}:\n" for role in ROLES), "\n\n"])
        closings = {"system": gap, "user": gap, "assistant": [tokenizer.eos_id]}
        return cls(tokenizer, dict(zip(ROLES, headers, strict=True)), closings)

    @property
    def without_mask(self) -> str | None:
        """Why no mask can be made: it always can."""
        return None

    @property
    def closing(self) -> list[int]:
        """What ends an answer that was cut short."""
        return self.closings["assistant"]

    @property
    def end_id(self) -> int:
        """The token that ends the assistant's turn and so stops generation."""
        return self.closings["assistant"][0]

    def encode(self, messages: Sequence[Message]) -> tuple[np.ndarray, np.ndarray]:
        """One conversation: ids (n,) int64, and mask (n,) bool, true on the assistant's words and their end token.

        Raises:
            ValueError: a role that is none of `ROLES`.
        """
        return self.encode_batch([messages])[0]

    def encode_batch(self, conversations: Sequence[Sequence[Message]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """`encode` of each conversation, in one call of the tokenizer."""
        turns = [turn for messages in conversations for turn in messages]
        ids, counts = self.tokenizer.encode_flat([turn["content"] for turn in turns])
        words = iter(np.split(ids, np.cumsum(counts)))
        return [self._assemble(messages, words) for messages in conversations]

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids up to where the assistant's answer to `messages` begins.

        Raises:
            ValueError: a role that is none of `ROLES`.
        """
        return [*self.encode(messages)[0].tolist(), *self.openings["assistant"]]

    def encode_turns(self, messages: Sequence[Message]) -> list[int]:
        """The ids of `messages`, up to where the next turn begins.

        Raises:
            ValueError: a role that is none of `ROLES`.
        """
        return self.encode(messages)[0].tolist()

    def encode_follow_up(self, text: str) -> list[int]:
        """What goes on from a closed turn: the user says `text`, and the assistant's answer begins."""
        return self.encode_prompt([{"role": "user", "content": text}])[1:]

    def _assemble(self, messages: Sequence[Message], words: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        parts: list[Sequence[int] | np.ndarray] = [[self.tokenizer.bos_id]]
        learned = [False]
        for message in messages:
            role = message["role"]
            if role not in self.openings:
                raise ValueError(f"a message has the role {role!r}; known roles are {', '.join(ROLES)}")
            parts += [self.openings[role], next(words), self.closings[role]]
            learned += [False, role == "assistant", role == "assistant"]
        ids = np.concatenate(parts, dtype=np.int64, casting="unsafe")  # an empty list has no integer type
        return ids, np.repeat(learned, [len(part) for part in parts])
