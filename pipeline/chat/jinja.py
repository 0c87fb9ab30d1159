"""A tokenizer's own chat template: the ids that transformers makes, and an exact mask from its generation blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

import numpy as np
import tokenizers

from pipeline.chat.rendering import Control, CutUpError, Rendered, Renderer, beginning, unused_characters
from pipeline.chat.schemas import ROLES, Message
from pipeline.chat.tokenizer import Tokenizer

_REMEDY = (
    "Give a template as tokenize.chat_template in which {% generation %}…{% endgeneration %} stands around what the "
    "assistant says and the control token that ends it"
)


class JinjaTemplate:
    """One of the two `ChatTemplate`s; the other is `pipeline.chat.turns.TurnTemplate`.

    A rendered conversation is one text for the tokenizer, so a merge may cross the edge of an answer; a token is
    supervised if any of its characters is the answer's. Control tokens are only those that the template writes.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """
        Raises:
            ValueError: the template is not valid, or fails on the plainest conversation.
        """
        assert tokenizer.chat_template is not None
        added = tokenizer.backend.get_added_tokens_decoder()
        controls = {
            token.content: Control(token_id, token.lstrip, token.rstrip)
            for token_id, token in added.items()
            if token.special
        }
        self.tokenizer = tokenizer
        self._renderer = Renderer(tokenizer.chat_template, tokenizer.names, controls)
        self._backends: dict[str, tokenizers.Tokenizer] = {}
        self._problems: dict[tuple[str, ...], str | None] = {}
        answer = self._after_answer([])
        self.end_id = answer.controls[0] if answer else tokenizer.eos_id
        """The token that ends the assistant's turn and so stops generation."""

    @property
    def closing(self) -> list[int]:
        """What ends an answer that was cut short."""
        return [self.end_id]

    @cached_property
    def without_mask(self) -> str | None:
        """Why no mask can be made, if so: nothing says which words are the assistant's, or it is said wrongly."""
        if not self._renderer.has_generation_block:
            return (
                f"the chat template has no {{% generation %}} block: what the assistant says is not marked. {_REMEDY}"
            )
        exchanges = ("user", "assistant") * 2
        for roles in (exchanges, ("system", *exchanges)):
            with suppress(ValueError):  # a template may refuse them
                if problem := self._misplaced(roles):
                    return f"{problem}. {_REMEDY}"
        return None

    def encode(self, messages: Sequence[Message]) -> tuple[np.ndarray, np.ndarray]:
        """One conversation: ids (n,) int64, and mask (n,) bool, true on the assistant's words and their end token.

        Raises:
            ValueError: the template does not mark each answer, or does not take these messages.
        """
        return self.encode_batch([messages])[0]

    def encode_batch(self, conversations: Sequence[Sequence[Message]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """`encode` of each conversation."""
        if self.without_mask:
            raise ValueError(self.without_mask)
        found = []
        for messages in conversations:
            rendered = self._renderer.render(messages, marked=True)
            _check_answers(rendered, messages)
            if problem := self._misplaced(tuple(message["role"] for message in messages)):
                raise ValueError(f"{problem}, in the conversation beginning {beginning(messages)!r}. {_REMEDY}")
            ids, offsets = self._tokens(rendered)
            found.append((ids, supervised(rendered, offsets)))
        return found

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids up to where the assistant's answer to `messages` begins.

        Raises:
            ValueError: the template does not take these messages.
        """
        return self._tokens(self._renderer.render(messages, prompt=True))[0].tolist()

    def encode_turns(self, messages: Sequence[Message]) -> list[int]:
        """The ids of `messages`, up to the last token that ends a turn if there is one: what follows goes on from it.

        Raises:
            ValueError: the template does not take these messages.
        """
        ids = self._tokens(self._renderer.render(messages))[0].tolist()
        after_end = ids[::-1].index(self.end_id) if self.end_id in ids else 0
        return ids[: len(ids) - after_end]

    def encode_follow_up(self, text: str) -> list[int]:
        """What goes on from a closed turn: the user says `text`, and the assistant's answer begins.

        Raises:
            ValueError: the template does not close an answer with a control token.
        """
        rendered = self._after_answer([{"role": "user", "content": text}])
        if rendered is None:
            raise ValueError("the chat template does not close an answer with a control token; give each prompt alone")
        return self._tokens(rendered)[0].tolist()[1:]

    def _misplaced(self, roles: tuple[str, ...]) -> str | None:
        """What is wrong with the blocks in conversations of these roles, if so: made-up words tell whose is where.

        Raises:
            ValueError: the template does not take these roles.
        """
        if roles not in self._problems:
            asked, *answered = unused_characters([str(self.tokenizer.chat_template)], 3)
            words = {"user": (asked, asked), "system": (asked, asked), "assistant": answered}
            said = {role: " {}\n{} ".format(*words[role]) for role in ROLES}  # space to trim, and lines to part
            turns: list[Message] = [{"role": role, "content": said[role]} for role in roles]
            try:
                rendered = self._renderer.render(turns, marked=True)
            except CutUpError as error:
                self._problems[roles] = str(error)
            else:
                self._problems[roles] = self._problem(rendered, roles.count("assistant"), asked, answered)
        return self._problems[roles]

    def _problem(self, rendered: Rendered, answers: int, asked: str, answered: Sequence[str]) -> str | None:
        """`answered` are the characters of each of the answers, `asked` that of all else that is said."""
        text, separator = rendered.text, rendered.separator
        blocks = [text[start:stop] for start, stop in rendered.answers]
        inside = "".join(blocks)
        is_missing = len(blocks) != answers or any(set(answered).isdisjoint(block) for block in blocks)
        if is_missing or asked in inside or any(text.count(word) > inside.count(word) for word in answered):
            return (
                "the {% generation %} blocks of the chat template do not hold each answer and no question or system "
                "message"
            )
        places = (found.start() for found in re.finditer(separator, text))
        controls = dict(zip(places, rendered.controls, strict=True))
        for block, (_, stop) in zip(blocks, rendered.answers, strict=True):
            follows = controls.get(stop, self.end_id)
            if follows != self.end_id and not block.rstrip().endswith(separator):
                names = map(self.tokenizer.backend.id_to_token, (follows, self.end_id))
                return "{} follows a {{% generation %}} block of the chat template, but {} a last answer".format(*names)
        return None

    def _after_answer(self, messages: Sequence[Message]) -> Rendered | None:
        """What the template writes from the token on that ends an answer, if `messages` follow; None without one."""
        contents = [message["content"] for message in messages]
        asked, answered = unused_characters([str(self.tokenizer.chat_template), *contents], 2)
        rendered = self._renderer.render([*_turns(asked, answered), *messages], prompt=bool(messages))
        end = rendered.text.find(rendered.separator, rendered.text.find(answered))
        return rendered.since(end) if answered in rendered.text and end >= 0 else None

    def _tokens(self, rendered: Rendered) -> tuple[np.ndarray, np.ndarray]:
        """ids (n,) int64, and offsets (n, 2): the characters of `rendered.text` that each stands for."""
        backend = self._backend(rendered.separator)
        found = backend.encode(rendered.text, add_special_tokens=False)
        ids = np.array(found.ids, dtype=np.int64)
        ids[ids == backend.token_to_id(rendered.separator)] = rendered.controls
        return ids, np.array(found.offsets, dtype=np.int64).reshape(-1, 2)

    def _backend(self, separator: str) -> tokenizers.Tokenizer:
        """One in which `separator` splits a text as a control token does, and whose offsets leave no space out."""
        if separator not in self._backends:
            backend = tokenizers.Tokenizer.from_str(self.tokenizer.backend.to_str())
            backend.encode_special_tokens = True
            backend.post_processor = None
            backend.add_tokens([tokenizers.AddedToken(separator, special=False, normalized=False)])
            self._backends[separator] = backend
        return self._backends[separator]


def supervised(rendered: Rendered, offsets: np.ndarray) -> np.ndarray:
    """Which tokens (n,) bool hold a character of an answer or the control token that ends it.

    A token of no characters counts as the one it stands before.

    Args:
        offsets: (n, 2) the characters of `rendered.text` that each token stands for.

    Raises:
        ValueError: no control token ends an answer.
    """
    text = rendered.text
    learned = np.zeros(len(text) + 1, dtype=bool)
    for start, stop in rendered.answers:
        learned[start:stop] = True
        if text[start:stop].rstrip().endswith(rendered.separator):
            continue
        if not text.startswith(rendered.separator, stop):
            raise ValueError(
                f"no control token ends the answer {text[start:stop][:60]!r} in the chat template. {_REMEDY}"
            )
        learned[stop] = True
    before = np.concatenate([[0], np.cumsum(learned)])
    starts, stops = offsets.T
    return before[np.maximum(stops, starts + 1)] > before[starts]


def _check_answers(rendered: Rendered, messages: Sequence[Message]) -> None:
    """
    Raises:
        ValueError: there is not one generation block for each answer, so one is left out or another text learned.
    """
    answers = sum(message["role"] == "assistant" for message in messages)
    if len(rendered.answers) != answers:
        raise ValueError(
            f"the chat template writes {len(rendered.answers)} {{% generation %}} blocks for the {answers} answers "
            f"of the conversation beginning {beginning(messages)!r}. {_REMEDY}"
        )


def _turns(asked: str, answered: str) -> list[Message]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
