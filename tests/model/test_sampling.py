"""The choice of the next token; transformers' logits processors are the oracle."""

from typing import Any

import pytest
import torch
from torch import Tensor

from model.sampling import Sampler, Sampling

transformers = pytest.importorskip("transformers")
processors: Any = pytest.importorskip("transformers.generation.logits_process")


@pytest.fixture
def logits(device: torch.device) -> Tensor:
    return 3 * torch.randn(20, 50, device=device)


def drawn(logits: Tensor, **options: float | int | None) -> set[int]:
    prompts = [torch.zeros(1, dtype=torch.int64, device=logits.device)] * 500
    sampler = Sampler(Sampling(**{"temperature": 1.0, **options}), prompts, logits.shape[-1], seed=0)
    return set(sampler(logits.expand(500, -1)).tolist())


def test_restrictions(device: torch.device) -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]], device=device).log()
    assert drawn(logits) == {0, 1, 2, 3}
    assert drawn(logits, top_k=2) == {0, 1}
    assert drawn(logits, top_k=9) == {0, 1, 2, 3}
    assert drawn(logits, top_p=0.65) == {0, 1}
    assert drawn(logits, top_p=0.05) == {0}
    assert drawn(logits, top_k=3, top_p=0.99) == {0, 1, 2}
    assert drawn(logits, min_p=0.4) == {0, 1, 2}
    assert drawn(logits, min_p=1.0) == {0}
    assert drawn(logits, temperature=1e-3) == {0}
    assert drawn(logits, repetition_penalty=1e3, top_k=3) == {1, 2, 3}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 5},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"top_k": 10, "top_p": 0.7, "min_p": 0.05},
        {"repetition_penalty": 1.7, "top_k": 12, "top_p": 0.9, "min_p": 0.02},
        {"repetition_penalty": 0.6},
    ],
)
def test_the_distribution_is_that_of_transformers(logits: Tensor, options: dict[str, Any]) -> None:
    """In the order of transformers' generate."""
    sampling = Sampling(temperature=0.7, **options)
    prompts = torch.randint(0, 50, (20, 15), device=logits.device)
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, prompts, True)
    actual = sampling.restrict(sampling.penalize(logits, seen)).softmax(-1)

    chain = [processors.RepetitionPenaltyLogitsProcessor(options.get("repetition_penalty", 1.0))]
    chain += [processors.TemperatureLogitsWarper(0.7)]
    for name, warper in (("top_k", "TopKLogitsWarper"), ("top_p", "TopPLogitsWarper"), ("min_p", "MinPLogitsWarper")):
        if name in options:
            chain.append(getattr(processors, warper)(options[name]))
    expected = logits.clone()
    for processor in chain:
        expected = processor(prompts, expected)
    expected = expected.softmax(-1)
    assert torch.equal(actual == 0, expected == 0)
    torch.testing.assert_close(actual, expected)


def test_the_penalty_counts_the_prompt_and_what_was_chosen(device: torch.device) -> None:
    logits = torch.tensor([[2.0, 1.9, 1.8, -1.0], [1.0, 0.9, 0.8, -0.1]], device=device)
    prompts = [torch.tensor([0], device=device), torch.tensor([3, 3], device=device)]
    sampler = Sampler(Sampling(repetition_penalty=1.5), prompts, 4, seed=None)
    assert [sampler(logits).tolist() for _ in range(3)] == [[1, 0], [2, 1], [0, 2]]


def test_a_row_draws_from_its_own_generator(logits: Tensor) -> None:
    sampling, prompts = Sampling(temperature=1.0), list(torch.zeros(20, 1, dtype=torch.int64, device=logits.device))
    together = Sampler(sampling, prompts, 50, seed=5)
    alone = [Sampler(sampling, prompts[:1], 50, seed=5 + row) for row in range(20)]
    for _ in range(3):
        tokens = together(logits)
        assert tokens.tolist() == [int(sampler(logits[i : i + 1])) for i, sampler in enumerate(alone)]
