"""A loaded model that answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from model import DecodeState, generate_stream, load_pretrained
from model.decode import Decoder
from model.generation import Stream
from model.sampling import Sampling
from pipeline.chat.schemas import Message
from pipeline.chat.template import ChatTemplate, template_for
from pipeline.chat.tokenizer import Tokenizer, load_tokenizer
from pipeline.generate.text import TextStream


@dataclass(frozen=True)
class Session:
    """What all answers of one run share."""

    decoder: Decoder
    template: ChatTemplate
    raw: bool
    """Prompts are text to continue, not turns of a conversation."""
    max_new_tokens: int
    sampling: Sampling
    stop: Sequence[str]
    seed: int | None

    @property
    def tokenizer(self) -> Tokenizer:
        return self.template.tokenizer

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""
        return self.tokenizer.eos_id if self.raw else self.template.end_id

    @property
    def closing(self) -> list[int]:
        """What follows an answer that was cut short."""
        return [] if self.raw else self.template.closing

    def prompt_ids(self, text: str, system: str | None = None, before: Sequence[int] = ()) -> list[int]:
        """Up to where the answer begins.

        Args:
            before: ids of what was said already, up to the end of a turn; `system` is among it.
        """
        if self.raw:
            return [*(before or [self.tokenizer.bos_id]), *self.tokenizer.encode([text])[0]]
        if before:
            return [*before, *self.template.encode_follow_up(text)]
        return self.template.encode_prompt(_turns(system, text))

    def context_ids(self, system: str | None, text: str | None) -> list[int]:
        """What other prompts go on from: the turns, but no answer begun."""
        if self.raw:
            return self.prompt_ids(text or "")
        return self.template.encode_turns(_turns(system, text))

    def answer(self, ids: Sequence[int], state: DecodeState | None = None) -> Answer:
        """Begin to answer one prompt, whose first ids `state` may have read."""
        return Answer(self, ids, state)

    def answers(self, prompts: Sequence[list[int]], state: DecodeState | None, first: int) -> list[str]:
        """The answers to a batch of prompts, of which the first is number `first` of all."""
        seed = None if self.seed is None else self.seed + first
        texts = [TextStream(self.tokenizer, self.stop) for _ in prompts]
        said = [""] * len(prompts)
        open_rows = set(range(len(prompts)))
        for tokens in self._stream(prompts, state, seed):
            chosen = tokens.tolist()
            for row in sorted(open_rows):
                if chosen[row] != self.end_id:
                    said[row] += texts[row].feed(chosen[row])
                if chosen[row] == self.end_id or texts[row].stopped:
                    open_rows.remove(row)
            if not open_rows:
                break
        return [begun + text.rest() for begun, text in zip(said, texts, strict=True)]

    def _stream(self, prompts: Sequence[Sequence[int]], state: DecodeState | None, seed: int | None) -> Stream:
        device = self.decoder.model.embedding.weight.device
        return generate_stream(
            self.decoder,
            [torch.tensor(prompt, device=device) for prompt in prompts],
            max_new_tokens=self.max_new_tokens,
            **asdict(self.sampling),
            eos_token_id=self.end_id,
            seed=seed,
            state=state,
        )


class Answer:
    """One answer: iterate over its text, which comes token by token; then `state` and `ids` say what was said."""

    def __init__(self, session: Session, ids: Sequence[int], state: DecodeState | None) -> None:
        self._session, self._prompt = session, list(ids)
        self._stream = session._stream([ids], state, session.seed)
        self._made: list[int] = []

    def __iter__(self) -> Iterator[str]:
        """The text of each token, which may be empty."""
        text = TextStream(self._session.tokenizer, self._session.stop)
        for tokens in self._stream:
            self._made.append(int(tokens))
            if self._made[-1] == self._session.end_id:
                break
            yield text.feed(self._made[-1])
            if text.stopped:
                return
        yield text.rest()

    def state(self) -> DecodeState:
        """After all but the last of `ids`."""
        return self._stream.state()

    @property
    def ids(self) -> list[int]:
        """Of the prompt and of the answer so far, its end added if it was cut short."""
        closed = self._made[-1:] == [self._session.end_id]
        return [*self._prompt, *self._made, *([] if closed else self._session.closing)]


def open_session(
    path: Path,
    device: torch.device,
    *,
    raw: bool,
    max_new_tokens: int,
    sampling: Sampling,
    stop: Sequence[str],
    seed: int | None,
) -> Session:
    """Load the model and the tokenizer in a directory.

    Raises:
        ValueError: there are none, or they do not belong together.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: no such directory; `make repro` makes artifacts/finetune/model, or give --model DIR")
    tokenizer = load_tokenizer(path)
    model = load_pretrained(path, device=device).eval()
    if model.config.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"{path}: the model knows {model.config.vocab_size} tokens, its tokenizer {tokenizer.vocab_size}; "
            "put the model's own tokenizer.json there"
        )
    template = template_for(tokenizer)
    return Session(Decoder(model), template, raw, max_new_tokens, sampling, stop, seed)


def _turns(system: str | None, text: str | None) -> list[Message]:
    said = (("system", system), ("user", text))
    return [{"role": role, "content": content} for role, content in said if content is not None]
