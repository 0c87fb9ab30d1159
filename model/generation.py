"""Text generation: greedy or sampled, whole or streamed, from the start of a text or from a state that has read it."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from model.decode import Decoder
from model.hybrid import HybridLM
from model.sampling import Sampler, Sampling
from model.state import DecodeState, LayerState, cat_layers

PREFILL_CHUNK = 2048
"""Tokens of a row that are read at once."""

GPU_TOKENS = 8192
"""Of all rows together, of which fewer rows take longer chunks on a GPU: with fewer it waits for its host."""

Prompts = TypeVar("Prompts", Tensor, list[Tensor])


def generate(
    model: HybridLM | Decoder,
    input_ids: Prompts,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    eos_token_id: int | None = None,
    seed: int | None = None,
    state: DecodeState | None = None,
    prefill_chunk: int | None = None,
) -> Prompts:
    """Continue a batch of prompts, each as if it were alone (up to rounding).

    Args:
        model: the model; its state per row is constant in size, plus the keys and values of its attention. A
            `model.decode.Decoder` of it saves packing the weights again at each call.
        input_ids: (batch, seqlen) int64 prompts of one length, or a list of prompts (seqlen,) of any lengths.
        max_new_tokens: most tokens to add to each.
        temperature: 0 takes the likeliest token; above 0 divides the logits before sampling.
        top_k: sample among the k likeliest tokens.
        top_p: sample among the fewest tokens whose probability reaches p (Holtzman et al. 2020).
        min_p: sample among the tokens at least p times as probable as the likeliest (Nguyen et al. 2024).
        repetition_penalty: above 1 makes tokens less likely that occurred, in the prompt too: their logits are
            divided by it if positive, else multiplied (Keskar et al. 2019).
        eos_token_id: a row ends with this token; generation stops when all rows ended.
        seed: makes sampling repeatable: row i draws what it would draw alone with `seed + i`. None draws from
            torch's global generator.
        state: what `prefill` returned for the first tokens of the prompts, of one row or of as many as there are
            prompts. They are not read again; the result is the same. The state itself stays as it is.
        prefill_chunk: tokens of a row that are read at once: memory for longer prompts grows with the keys and values
            only. By default 2048; on a GPU, of less than four rows, as many as make 8192 in all.

    Returns:
        Prompts and continuations: (batch, seqlen + new) int64, where a row that ended is filled with
        `eos_token_id`; or for a list of prompts a list of rows, each up to its end.

    Raises:
        ValueError: options out of range, an empty prompt, or a state that has read something else.
    """
    steps = generate_stream(
        model,
        input_ids,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        eos_token_id=eos_token_id,
        seed=seed,
        state=state,
        prefill_chunk=prefill_chunk,
    )
    columns: list[Tensor] = [tokens.unsqueeze(1) for tokens in steps]
    if isinstance(input_ids, Tensor):
        return torch.cat([input_ids, *columns], dim=1)
    if not columns:
        return [prompt.clone() for prompt in input_ids]
    return [
        torch.cat([prompt, _to_end(row, eos_token_id)])
        for prompt, row in zip(input_ids, torch.cat(columns, 1), strict=True)
    ]


def generate_stream(
    model: HybridLM | Decoder,
    input_ids: Tensor | list[Tensor],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    eos_token_id: int | None = None,
    seed: int | None = None,
    state: DecodeState | None = None,
    prefill_chunk: int | None = None,
) -> "Stream":
    """Like `generate`, but yield each step's tokens, (batch,) int64, as soon as they are known."""
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty
    )
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: it must not be negative")
    _check_chunk(prefill_chunk)
    prompts = _rows(input_ids)
    _check_ids(prompts, (model.model if isinstance(model, Decoder) else model).config.vocab_size)
    if state is not None:
        _check_read(prompts, state)
    decoder = model if isinstance(model, Decoder) else Decoder(model)
    sampler = Sampler(sampling, prompts, decoder.model.config.vocab_size, seed)
    return Stream(decoder, prompts, sampler, max_new_tokens, eos_token_id, state, prefill_chunk)


def prefill(model: HybridLM, input_ids: Tensor, *, prefill_chunk: int | None = None) -> DecodeState:
    """Read the beginning of prompts once: the state from which `generate` goes on.

    Args:
        input_ids: (batch, seqlen) int64, the first tokens of the prompts to come, at least one short of the whole.
        prefill_chunk: as in `generate`.

    Raises:
        ValueError: no token to read, or prefill_chunk below 1.
    """
    _check_chunk(prefill_chunk)
    ids = torch.stack(_rows(input_ids))
    with torch.no_grad():
        return _read(model, ids, model.new_state(len(ids)), prefill_chunk)[1]


class Stream(Iterator[Tensor]):
    """Tokens while they are made; what `generate_stream` returns."""

    def __init__(
        self,
        decoder: Decoder,
        prompts: list[Tensor],
        sampler: Sampler,
        max_new_tokens: int,
        eos_token_id: int | None,
        prefix: DecodeState | None,
        prefill_chunk: int | None,
    ) -> None:
        self._decoder, self._prompts, self._sampler = decoder, prompts, sampler
        self._remaining, self._eos = max_new_tokens, eos_token_id
        self._prefix, self._chunk = prefix, prefill_chunk
        self._layers: list[LayerState] = []
        self._made: list[Tensor] = []
        self._ended = torch.zeros(len(prompts), dtype=torch.bool, device=prompts[0].device)

    def __next__(self) -> Tensor:
        if self._remaining == 0 or (self._made and self._eos is not None and bool(self._ended.all())):
            raise StopIteration
        with torch.inference_mode():
            logits = self._decoder.step(self._made[-1], self._layers) if self._made else self._begin()
            tokens = self._sampler(logits)
            if self._eos is not None:
                tokens = tokens.masked_fill(self._ended, self._eos)
                self._ended = self._ended | (tokens == self._eos)
        self._made.append(tokens)
        self._remaining -= 1
        return tokens.clone()  # outside of inference mode: a tensor like any other

    def state(self) -> DecodeState:
        """A copy of the state after the prompts and all tokens made but the last, which no step has read yet.

        Raises:
            ValueError: no token is made yet, or the prompts' lengths differ.
        """
        if not self._made or len({len(prompt) for prompt in self._prompts}) > 1:
            raise ValueError("a stream has a state once it made a token, and where its prompts have one length")
        read = [tokens.unsqueeze(1) for tokens in self._made[:-1]]
        return DecodeState(tuple(self._layers), torch.cat([torch.stack(self._prompts), *read], dim=1)).clone()

    def _begin(self) -> Tensor:
        """Read the prompts, those of one length together, into one state; return the next token's logits."""
        groups: dict[int, list[int]] = {}
        for row, prompt in enumerate(self._prompts):
            groups.setdefault(len(prompt), []).append(row)
        logits, states = zip(*(self._read_rows(rows) for rows in groups.values()), strict=True)
        if len(groups) == 1:
            self._layers = list(states[0].layers)
            return logits[0]
        rows = torch.tensor([row for group in groups.values() for row in group], device=logits[0].device)
        order = rows.argsort()
        merged = cat_layers([state.layers for state in states])
        self._layers = [None if layer is None else layer.select(order) for layer in merged]
        return torch.cat(logits)[order]

    def _read_rows(self, rows: list[int]) -> tuple[Tensor, DecodeState]:
        ids, prefix = torch.stack([self._prompts[row] for row in rows]), self._prefix
        if prefix is None:
            state = self._decoder.model.new_state(len(rows))
        elif len(prefix.ids) == 1:
            state = prefix.expand(len(rows))
        else:
            state = prefix.select(torch.tensor(rows, device=ids.device))
        return _read(self._decoder.model, ids[:, state.ids.shape[1] :], state, self._chunk)


def _read(model: HybridLM, input_ids: Tensor, state: DecodeState, chunk: int | None) -> tuple[Tensor, DecodeState]:
    """Take more tokens, (batch, seqlen) int64, into a state: the next token's logits, (batch, vocab_size), and it."""
    if chunk is None:
        chunk = max(PREFILL_CHUNK, GPU_TOKENS // len(input_ids)) if input_ids.is_cuda else PREFILL_CHUNK
    for part in input_ids.split(chunk, dim=1):
        output = model(part, state=state)
        state = output.state
    return output.last_logits(), state


def _to_end(row: Tensor, eos_token_id: int | None) -> Tensor:
    """New tokens (new,) up to the first that ends the row, it included."""
    if eos_token_id is None:
        return row
    ends = (row == eos_token_id).nonzero()
    return row[: int(ends[0]) + 1] if len(ends) else row


def _rows(input_ids: Tensor | Sequence[Tensor]) -> list[Tensor]:
    if isinstance(input_ids, Tensor):
        if input_ids.dim() != 2 or input_ids.numel() == 0:
            raise ValueError(f"input_ids is {tuple(input_ids.shape)}: it must be (batch, seqlen), each at least 1")
        return list(input_ids)
    if not input_ids:
        raise ValueError("input_ids is an empty list: give at least one prompt")
    for row, prompt in enumerate(input_ids):
        if prompt.dim() != 1 or len(prompt) == 0:
            raise ValueError(
                f"input_ids[{row}] is {tuple(prompt.shape)}: a prompt must be (seqlen,), seqlen at least 1"
            )
    return list(input_ids)


def _check_ids(prompts: list[Tensor], vocab_size: int) -> None:
    for row, prompt in enumerate(prompts):
        if prompt.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"input_ids[{row}] is {prompt.dtype}: token ids are int64")
        if bool((prompt < 0).any()) or bool((prompt >= vocab_size).any()):
            raise ValueError(f"input_ids[{row}] has ids outside of the vocabulary of {vocab_size}")


def _check_chunk(prefill_chunk: int | None) -> None:
    if prefill_chunk is not None and prefill_chunk < 1:
        raise ValueError(f"prefill_chunk is {prefill_chunk}: it must be at least 1")


def _check_read(prompts: list[Tensor], state: DecodeState) -> None:
    rows, length = state.ids.shape
    if rows not in (1, len(prompts)):
        raise ValueError(f"the state has {rows} rows and there are {len(prompts)} prompts: give a state of one row")
    for row, prompt in enumerate(prompts):
        if len(prompt) <= length or not torch.equal(prompt[:length], state.ids[row if rows > 1 else 0]):
            raise ValueError(
                f"prompt {row} does not go on from what the state has read: it must begin with those {length} tokens, "
                "and have at least one more"
            )
