"""Generation: decoding, sampling, endings."""

import dataclasses

import pytest
import torch
from torch import Tensor

from model import HybridConfig, HybridLM, generate, generate_stream
from model.generation import sample


@pytest.fixture
def model(tiny: HybridConfig, device: torch.device) -> HybridLM:
    return HybridLM(dataclasses.replace(tiny, rope_theta=1e4, mamba_bias=True, initializer_range=0.2)).to(device)


@pytest.fixture
def prompt(device: torch.device) -> Tensor:
    return torch.randint(0, 512, (3, 7), device=device)


@pytest.mark.parametrize(
    "changes", [{}, {"n_groups": 2, "conv_bias": False, "norm_before_gate": True, "dt_limit": (0.01, 0.05)}]
)
def test_greedy_takes_the_likeliest_token_of_the_full_forward(
    tiny: HybridConfig, device: torch.device, prompt: Tensor, changes: dict[str, object]
) -> None:
    model = HybridLM(dataclasses.replace(tiny, initializer_range=0.2, **changes)).to(device).double()
    ids = generate(model, prompt, max_new_tokens=80)  # past the first capacity of the attention state
    assert ids.shape == (3, 87)
    assert torch.equal(ids[:, :7], prompt)
    with torch.no_grad():
        expected = model(ids[:, :-1]).logits.argmax(-1)
    assert torch.equal(ids[:, 7:], expected[:, 6:])


def test_stream_yields_the_same_tokens(model: HybridLM, prompt: Tensor) -> None:
    steps = list(generate_stream(model, prompt, max_new_tokens=5))
    assert torch.equal(torch.stack(steps, dim=1), generate(model, prompt, max_new_tokens=5)[:, 7:])


def test_seed_repeats(model: HybridLM, prompt: Tensor) -> None:
    def run(seed: int) -> Tensor:
        return generate(model, prompt, max_new_tokens=12, temperature=1.0, seed=seed)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_rows_end_on_their_own(model: HybridLM, prompt: Tensor) -> None:
    free = generate(model, prompt, max_new_tokens=10)[:, 7:]
    eos = int(free[0, 2])
    ended = generate(model, prompt, max_new_tokens=10, eos_token_id=eos)[:, 7:]
    for row, expected in zip(ended.tolist(), free.tolist(), strict=True):
        stop = expected.index(eos) + 1 if eos in expected else len(row)
        assert row[:stop] == expected[: min(stop, len(row))]
        assert set(row[stop:]) <= {eos}
    alone = generate(model, prompt[:1], max_new_tokens=10, eos_token_id=eos)
    assert alone.shape[1] == 7 + free[0].tolist().index(eos) + 1


def test_no_new_tokens(model: HybridLM, prompt: Tensor) -> None:
    assert torch.equal(generate(model, prompt, max_new_tokens=0), prompt)


def drawn(logits: Tensor, **options: float | int | None) -> set[int]:
    chosen = {"temperature": 1.0, "top_k": None, "top_p": None, **options}
    generator = torch.Generator(logits.device).manual_seed(0)
    return set(sample(logits.expand(500, -1), **chosen, generator=generator).tolist())


def test_sampling_restrictions(device: torch.device) -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]], device=device).log()
    assert drawn(logits) == {0, 1, 2, 3}
    assert drawn(logits, top_k=2) == {0, 1}
    assert drawn(logits, top_k=9) == {0, 1, 2, 3}
    assert drawn(logits, top_p=0.65) == {0, 1}
    assert drawn(logits, top_p=0.05) == {0}
    assert drawn(logits, top_k=3, top_p=0.99) == {0, 1, 2}
    assert drawn(logits, temperature=1e-3) == {0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
    ],
)
def test_mistakes_are_named(model: HybridLM, prompt: Tensor, options: dict[str, float | int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(model, prompt, **{"max_new_tokens": 1, **options})
