"""How the next token is chosen from the logits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COLDEST = 1e-30
"""But for 0: fp32 can still divide by it."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Options of the choice; `generate` explains them. Applied in this order: penalty, temperature, top-k, -p, min-p.

    Raises:
        ValueError: one is out of range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature != 0 and not COLDEST <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: 0 is greedy, from {COLDEST} on it samples")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}: it must be at least 1")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} is {value}: it must be above 0 and at most 1")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}: it must be above 0; 1 is none")

    def penalize(self, logits: Tensor, seen: Tensor) -> Tensor:
        """Make the tokens that `seen` (batch, vocab_size) bool marks less likely, if the penalty is above 1."""
        penalty = self.repetition_penalty
        return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)

    def restrict(self, logits: Tensor) -> Tensor:
        """The logits (batch, vocab_size) to sample from: divided by the temperature, -inf where left out."""
        logits = (logits - logits.amax(-1, keepdim=True)) / self.temperature  # the largest is 0, however cold it is
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            smallest = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < smallest, -torch.inf)
        if self.top_p is not None:
            ordered, index = logits.softmax(-1).sort(dim=-1, descending=True)
            reached_before = ordered.cumsum(-1) - ordered >= self.top_p
            logits = logits.masked_fill(
                torch.empty_like(reached_before).scatter_(-1, index, reached_before), -torch.inf
            )
        if self.min_p is not None:
            logits = logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(self.min_p), -torch.inf)
        return logits


class Sampler:
    """Chooses the tokens of a batch, step by step.

    Args:
        prompts: each row's tokens so far, (seqlen,) int64.
        vocab_size: of the logits to come.
        seed: row i draws from a generator of its own, seeded with `seed + i`; None: all from torch's global one.
    """

    def __init__(self, sampling: Sampling, prompts: Sequence[Tensor], vocab_size: int, seed: int | None) -> None:
        self.sampling = sampling
        device = prompts[0].device
        self.generators: list[torch.Generator] = []
        if seed is not None:
            self.generators = [torch.Generator(device).manual_seed(seed + row) for row in range(len(prompts))]
        self.seen: Tensor | None = None
        if sampling.repetition_penalty != 1.0:
            self.seen = torch.zeros(len(prompts), vocab_size, dtype=torch.bool, device=device)
            for seen, prompt in zip(self.seen, prompts, strict=True):
                seen[prompt] = True

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits (batch, vocab_size) -> the chosen tokens, (batch,) int64."""
        if self.seen is not None:
            logits = self.sampling.penalize(logits, self.seen)
        tokens = self._choose(logits)
        if self.seen is not None:
            self.seen.scatter_(1, tokens.unsqueeze(1), True)
        return tokens

    def _choose(self, logits: Tensor) -> Tensor:
        if self.sampling.temperature == 0:
            return logits.argmax(-1)
        probabilities = self.sampling.restrict(logits).softmax(-1)
        if not self.generators:
            return torch.multinomial(probabilities, 1).squeeze(1)
        rows = zip(probabilities, self.generators, strict=True)
        return torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in rows])
