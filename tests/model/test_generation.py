"""Generation: decoding, sampling, endings."""

import dataclasses

import pytest
import torch
from torch import Tensor

from model import HybridConfig, HybridLM, generate, generate_stream, prefill
from model.decode import Decoder
from model.state import AttentionState
from tests.model.compare import assert_agree


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": 1e-320}, "temperature is 1e-320"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"min_p": 1.5}, "min_p is 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"prefill_chunk": 0}, "prefill_chunk is 0"),
    ],
)
def test_mistakes_are_named(model: HybridLM, prompt: Tensor, options: dict[str, float | int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(model, prompt, **{"max_new_tokens": 1, **options})


PATTERNS = ["MM", "*-*", "M-M*-M-"]


def make_model(tiny: HybridConfig, device: torch.device, pattern: str, **changes: object) -> HybridLM:
    config = dataclasses.replace(tiny, pattern=pattern, mamba_bias=True, initializer_range=0.2, **changes)
    return HybridLM(config).to(device)


def make_prompts(device: torch.device, *lengths: int) -> list[Tensor]:
    return [torch.randint(0, 512, (length,), device=device) for length in lengths]


@pytest.mark.parametrize("rope_theta", [None, 1e4])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_prompts_of_different_lengths_go_on_as_alone(
    tiny: HybridConfig, device: torch.device, pattern: str, rope_theta: float | None
) -> None:
    model = make_model(tiny, device, pattern, rope_theta=rope_theta)
    prompts = make_prompts(device, 7, 1, 30, 7, 100, 2)
    options = {"max_new_tokens": 70, "repetition_penalty": 1.3}  # a penalty: no row settles on one token
    together = generate(model, prompts, **options)
    for prompt, row in zip(prompts, together, strict=True):
        assert torch.equal(row, generate(model, prompt[None], **options)[0])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_row_draws_what_it_draws_alone(tiny: HybridConfig, device: torch.device, pattern: str) -> None:
    model = make_model(tiny, device, pattern)
    prompts = [*make_prompts(device, 5, 12, 5), torch.arange(9, device=device), torch.arange(9, device=device)]
    options = {"max_new_tokens": 15, "temperature": 1.0, "top_p": 0.9}
    together = generate(model, prompts, **options, seed=3)
    for i, (prompt, row) in enumerate(zip(prompts, together, strict=True)):
        assert torch.equal(row, generate(model, prompt[None], **options, seed=3 + i)[0])
    assert not torch.equal(together[3], together[4])


def test_rows_of_a_list_end_where_they_end(model: HybridLM, device: torch.device) -> None:
    prompts = make_prompts(device, 4, 9, 6)
    free = generate(model, prompts, max_new_tokens=10)
    eos = int(free[1][9 + 3])
    ended = generate(model, prompts, max_new_tokens=10, eos_token_id=eos)
    for prompt, row in zip(prompts, ended, strict=True):
        alone = generate(model, prompt[None], max_new_tokens=10, eos_token_id=eos)
        assert torch.equal(row, alone[0])
    assert [row.tolist() for row in generate(model, prompts, max_new_tokens=0)] == [p.tolist() for p in prompts]


@pytest.mark.parametrize("chunk", [1, 7, 64, 100])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_reading_in_chunks_is_reading_at_once(
    tiny: HybridConfig, device: torch.device, pattern: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.layers.attention._MASK_ELEMENTS", 2000)  # several masks per chunk
    model = make_model(tiny, device, pattern, rope_theta=1e4)
    ids = torch.randint(0, 512, (2, 100), device=device)
    whole, parts = prefill(model, ids), prefill(model, ids, prefill_chunk=chunk)
    assert torch.equal(parts.ids, ids)
    for a, b in zip(parts.layers, whole.layers, strict=True):
        if isinstance(a, AttentionState):
            assert_agree([a.keys, a.values], [b.keys, b.values], 1e-5)
        elif a is not None:
            assert_agree(a, b, 1e-5)
    expected = generate(model, ids, max_new_tokens=20)
    assert torch.equal(generate(model, ids, max_new_tokens=20, prefill_chunk=chunk), expected)


def test_a_chunk_bounds_what_is_read_at_once(model: HybridLM, prompt: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    handle = model.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    generate(model, prompt, max_new_tokens=1, prefill_chunk=3)
    handle.remove()
    assert seen == [3, 3, 1]


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.5}, {"temperature": 1.0, "seed": 1}])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_going_on_from_a_state_is_reading_the_whole_prompt(
    tiny: HybridConfig, device: torch.device, pattern: str, options: dict[str, float | int]
) -> None:
    model = make_model(tiny, device, pattern, rope_theta=1e4)
    context, *questions = make_prompts(device, 70, 5, 1, 9)
    state = prefill(model, context[None])
    prompts = [torch.cat([context, question]) for question in questions]
    for _ in range(2):  # the state stays as it is
        for prompt in prompts:
            expected = generate(model, prompt[None], max_new_tokens=12, **options)
            assert torch.equal(generate(model, prompt[None], max_new_tokens=12, state=state, **options), expected)
    together = generate(model, prompts, max_new_tokens=12, state=state, **options)
    for row, expected in zip(together, generate(model, prompts, max_new_tokens=12, **options), strict=True):
        assert torch.equal(row, expected)
    rows = torch.stack([prompts[0], prompts[0].flip(0)])
    several = prefill(model, rows[:, :40])
    assert torch.equal(generate(model, rows, max_new_tokens=5, state=several), generate(model, rows, max_new_tokens=5))


def test_the_state_after_a_stream_goes_on(model: HybridLM, prompt: Tensor) -> None:
    decoder = Decoder(model)
    stream = generate_stream(decoder, prompt, max_new_tokens=6)
    ids = torch.cat([prompt, torch.stack(list(stream), dim=1)], dim=1)
    state = stream.state()
    assert torch.equal(state.ids, ids[:, :-1])
    assert torch.equal(
        generate(decoder, ids, max_new_tokens=6, state=state), generate(model, prompt, max_new_tokens=12)
    )


def test_a_stream_has_no_state_before_a_token_nor_for_several_lengths(model: HybridLM, device: torch.device) -> None:
    fresh = generate_stream(model, make_prompts(device, 4), max_new_tokens=1)
    ragged = generate_stream(model, make_prompts(device, 4, 5), max_new_tokens=1)
    next(ragged)
    for stream in (fresh, ragged):
        with pytest.raises(ValueError, match="a stream has a state once"):
            stream.state()


def test_prompts_that_do_not_fit_are_named(model: HybridLM, prompt: Tensor) -> None:
    state = prefill(model, prompt[:1, :5])
    for ids in (prompt[1:2], prompt[:1, :5], prompt[:1, :3]):
        with pytest.raises(ValueError, match="prompt 0 does not go on from what the state has read"):
            generate(model, ids, max_new_tokens=1, state=state)
    with pytest.raises(ValueError, match="the state has 2 rows and there are 3 prompts"):
        generate(model, prompt, max_new_tokens=1, state=prefill(model, prompt[:2, :5]))
    with pytest.raises(ValueError, match="empty list"):
        generate(model, [], max_new_tokens=1)
    with pytest.raises(ValueError, match=r"input_ids\[1\] is \(0,\)"):
        generate(model, [prompt[0], prompt[0, :0]], max_new_tokens=1)
    with pytest.raises(ValueError, match="prefill_chunk is 0"):
        prefill(model, prompt, prefill_chunk=0)
