"""Text generation: greedy or sampled, whole or streamed."""

from collections.abc import Iterator

import torch
from torch import Tensor

from model.decode import Decoder
from model.hybrid import HybridLM


def generate(
    model: HybridLM,
    input_ids: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_token_id: int | None = None,
    seed: int | None = None,
) -> Tensor:
    """Continue a batch of prompts of equal length.

    Args:
        model: the model; its state per row is constant in size, plus the keys and values of its attention.
        input_ids: (batch, seqlen) int64 prompts.
        max_new_tokens: most tokens to add.
        temperature: 0 takes the likeliest token; above 0 divides the logits before sampling.
        top_k: sample among the k likeliest tokens.
        top_p: sample among the fewest tokens whose probability reaches p (Holtzman et al. 2020).
        eos_token_id: a row ends with this token and is filled with it; generation stops when all rows ended.
        seed: makes sampling repeatable; None draws from torch's global generator.

    Returns:
        (batch, seqlen + new) int64, prompts and continuations.

    Raises:
        ValueError: options out of range, or an empty prompt.
    """
    steps = generate_stream(
        model,
        input_ids,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        eos_token_id=eos_token_id,
        seed=seed,
    )
    return torch.cat([input_ids, *(tokens.unsqueeze(1) for tokens in steps)], dim=1)


def generate_stream(
    model: HybridLM,
    input_ids: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_token_id: int | None = None,
    seed: int | None = None,
) -> Iterator[Tensor]:
    """Like `generate`, but yield each step's tokens, (batch,) int64, as soon as they are known."""
    _check(input_ids, max_new_tokens, temperature, top_k, top_p)
    generator = None
    if seed is not None:
        generator = torch.Generator(input_ids.device).manual_seed(seed)
    return _decode(model, input_ids, max_new_tokens, temperature, top_k, top_p, eos_token_id, generator)


def _decode(
    model: HybridLM,
    input_ids: Tensor,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    eos_token_id: int | None,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    if max_new_tokens == 0:
        return
    decoder = Decoder(model)
    ended = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
    with torch.inference_mode():
        logits = decoder.prefill(input_ids)
    for remaining in reversed(range(max_new_tokens)):
        with torch.inference_mode():
            tokens = sample(logits, temperature, top_k, top_p, generator)
            if eos_token_id is not None:
                tokens = tokens.masked_fill(ended, eos_token_id)
                ended = ended | (tokens == eos_token_id)
        yield tokens.clone()  # outside of inference mode: a tensor like any other
        if remaining == 0 or (eos_token_id is not None and bool(ended.all())):
            return
        with torch.inference_mode():
            logits = decoder.step(tokens)


def sample(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw one token per row, (batch,) int64, from logits (batch, vocab_size)."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    probabilities = logits.softmax(-1)
    if top_p is not None:
        ordered, index = probabilities.sort(dim=-1, descending=True)
        reached_before = ordered.cumsum(-1) - ordered >= top_p
        probabilities = torch.zeros_like(ordered).scatter(-1, index, ordered.masked_fill(reached_before, 0))
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(1)


def _check(input_ids: Tensor, max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    if input_ids.dim() != 2 or input_ids.shape[1] == 0:
        raise ValueError(f"input_ids is {tuple(input_ids.shape)}: it must be (batch, seqlen), seqlen at least 1")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: it must not be negative")
    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature}: 0 is greedy, above 0 samples")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}: it must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}: it must be above 0 and at most 1")
