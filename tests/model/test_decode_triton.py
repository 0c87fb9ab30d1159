"""Decoding in Triton: interpreted where there is no GPU, a CUDA graph where there is one; against the model in fp64."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from model import HybridConfig, HybridLM, generate
from model.decode import Decoder, graph, selfcheck
from model.decode.triton import attention, linear
from model.generation import generate_stream
from model.state import AttentionState, LayerState, MambaState, cat_layers
from tests.model.compare import assert_agree, error
from tests.model.cover import label, pairwise

CUDA = torch.cuda.is_available()
ROUGHER = 1 if CUDA else 2
"""The interpreter cuts bits off where hardware rounds."""

AXES = {
    "dtype": [torch.float32, torch.bfloat16, torch.float16],
    "rows": [1, 2, 5],
    "pattern": ["M*-", "M", "*-"],
    "groups": [1, 2],
    "rotary": [None, 1.0, 0.5],
    "activation": ["gelu", "relu2", "silu-gated"],
    "biases": [False, True],
    "padded": [False, True],
    "options": ["none", "all"],
}
OPTIONS = {
    "attention_multiplier": 0.3,
    "residual_multiplier": 0.4,
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.0,
    "norm_before_gate": True,
    "dt_limit": (0.2, 0.9),
    "tie_embeddings": False,
    "residual_in_fp32": False,
    "d_conv": 2,
}


@pytest.fixture(autouse=True)
def _larger_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An interpreted program takes its time, whatever its size."""
    if not CUDA:
        monkeypatch.setattr(linear, "OUTS", 64)
        monkeypatch.setattr(linear, "PROGRAMS", 1)
    linear.planned.cache_clear()
    yield
    linear.planned.cache_clear()


def make(device: torch.device, dtype: torch.dtype = torch.float32, **options: object) -> HybridLM:
    """Random weights, none of them at its neutral value; sizes that are no multiple of anything."""
    sizes = {
        "pattern": "M*-",
        "vocab_size": 83,
        "d_model": 44,
        "n_mamba_heads": 2,
        "headdim": 20,
        "n_groups": 1,
        "d_state": 24,
        "n_heads": 2,
        "n_kv_heads": 1,
        "head_dim": 20,
        "d_ff": 75,
    }
    torch.manual_seed(0)
    model = HybridLM(HybridConfig(**sizes | options)).eval().requires_grad_(False)  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(device, dtype)


def tokens(model: HybridLM, rows: int, length: int) -> Tensor:
    return torch.randint(model.config.vocab_size, (rows, length), device=model.embedding.weight.device)


def read(model: HybridLM, ids: Tensor) -> list[LayerState]:
    """The states after these tokens."""
    with torch.no_grad():
        return list(model(ids, state=model.new_state(len(ids))).state.layers)


def steps(decoder: Decoder, ids: Tensor, states: list[LayerState]) -> Tensor:
    """Logits (rows, tokens, vocabulary) of tokens taken one by one."""
    return torch.stack([decoder.step(column, states) for column in ids.unbind(1)], dim=1)


@pytest.mark.parametrize("case", pairwise(AXES), ids=label)
def test_one_by_one_is_the_whole_text_in_double_precision(case: dict, device: torch.device) -> None:
    dtype = case["dtype"]
    biases = ("mamba_bias", "conv_bias", "attention_bias", "mlp_bias")
    model = make(
        device,
        dtype,
        pattern=case["pattern"],
        n_heads=2 * case["groups"],
        n_kv_heads=case["groups"],
        n_groups=case["groups"],
        rope_theta=None if case["rotary"] is None else 100.0,
        partial_rotary_factor=case["rotary"] or 1.0,
        mlp_activation=case["activation"],
        **dict.fromkeys(biases, case["biases"]),
        **(OPTIONS if case["options"] == "all" else {}),
    )
    rows, more = case["rows"], 2
    lengths = [4 + 3 * row if case["padded"] else 5 for row in range(rows)]
    texts = [tokens(model, 1, length + more) for length in lengths]
    exact = copy.deepcopy(model).double()
    expected = torch.cat([exact(text).logits[:, -more:] for text in texts])
    found = {}
    for backend in ("triton", "torch"):
        states = cat_layers([read(model, text[:, :-more]) for text in texts])
        if not case["padded"]:
            states = read(model, torch.cat(texts)[:, :-more])
        decoder = Decoder(model, backend=backend)  # type: ignore[arg-type]
        found[backend] = error(steps(decoder, torch.cat([text[:, -more:] for text in texts]), states), expected)
    rounding = {torch.float32: 2e-6, torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12}[dtype]
    assert found["triton"] <= ROUGHER * (2 * found["torch"] + rounding)


@pytest.mark.parametrize("context", [15, 16, 200])
def test_attention_over_shares_of_a_context(
    context: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "BLOCK", 16)
    monkeypatch.setattr(attention, "PROGRAMS", 32)
    model = make(device, pattern="*", rope_theta=100.0)
    ids = tokens(model, 2, context + 2)
    found = steps(Decoder(model, backend="triton"), ids[:, context:], read(model, ids[:, :context]))
    assert_agree([found], [model.double()(ids).logits[:, context:]], 1e-5)


def test_keys_and_values_outgrow_their_buffer(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "FIRST_CAPACITY", 2)
    model = make(device, pattern="M*")
    ids = tokens(model, 1, 6)
    states = list(model.new_state(1).layers)
    found = steps(Decoder(model, backend="triton"), ids, states)
    assert_agree([found], [model.double()(ids).logits], 1e-5)
    assert isinstance(states[1], AttentionState)
    assert states[1].length == 6


def test_texts_in_turn_through_one_decoder(device: torch.device) -> None:
    model = make(device)
    texts = [tokens(model, 1, 7), tokens(model, 1, 8)]
    states = [read(model, text[:, :-3]) for text in texts]
    decoder = Decoder(model, backend="triton")
    found = []
    for t in range(-3, 0):
        found.append([decoder.step(text[:, t], own) for text, own in zip(texts, states, strict=True)])
        before = copy.copy(states[0])  # another list of the same states
    for text, own in zip(texts, zip(*found, strict=True), strict=True):
        assert_agree([torch.stack(own, 1)], [copy.deepcopy(model).double()(text).logits[:, -3:]], 1e-5)
    expected = read(model, texts[0])
    for mine, other in ((before, expected), (states[0], expected)):
        assert isinstance(mine[0], MambaState)
        assert isinstance(other[0], MambaState)
        assert_agree(mine[0], other[0], 1e-5)


def test_a_text_is_left_and_another_number_of_rows_taken(device: torch.device) -> None:
    model = make(device, pattern="M*")
    one, three = tokens(model, 1, 4), tokens(model, 3, 2)
    decoder = Decoder(model, backend="triton")
    states = list(model.new_state(1).layers)
    first = steps(decoder, one[:, :2], states)
    together = steps(decoder, three, list(model.new_state(3).layers))
    rest = steps(decoder, one[:, 2:], states)
    exact = model.double()
    assert_agree([torch.cat([first, rest], 1), together], [exact(one).logits, exact(three).logits], 1e-5)


def test_generation_is_torchs_and_its_state_can_be_kept(device: torch.device) -> None:
    model = make(device)
    prompts = [tokens(model, 1, length)[0] for length in (5, 3)]
    options = {"max_new_tokens": 3}
    ours, theirs = (Decoder(model, backend=backend) for backend in ("triton", "torch"))  # type: ignore[arg-type]
    for mine, other in zip(generate(ours, prompts, **options), generate(theirs, prompts, **options), strict=True):
        assert torch.equal(mine, other)
    stream = generate_stream(ours, prompts[0][None], max_new_tokens=5)
    made = [next(stream) for _ in range(3)]
    kept = stream.state()
    rest = [next(stream) for _ in range(2)]
    text = torch.cat([prompts[0][None], *(new[:, None] for new in made)], 1)
    again = generate(ours, text, max_new_tokens=2, state=kept)
    assert torch.equal(again[:, -2:], torch.stack(rest, 1))
    outside = list(kept.layers)  # these are tensors of inference mode
    with torch.no_grad():
        decoder = Decoder(model, backend="triton")
        assert decoder.step(text[:, -1], outside).argmax() == rest[0]


def test_runs_are_bitwise_the_same_recorded_or_not(device: torch.device) -> None:
    model = make(device, torch.bfloat16)
    ids = tokens(model, 2, 2 if device.type == "cpu" else 3)
    decoder = Decoder(model, backend="triton")
    first, second = (steps(decoder, ids, list(model.new_state(2).layers)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("rows", [1, 2, 3, 17, 65])
@pytest.mark.parametrize("k", [20, 256])
def test_linear(rows: int, k: int, device: torch.device) -> None:
    outs = (9, 8, 1, 2, 5)
    weights = [torch.randn(out, k, device=device) for out in outs]
    biases = [torch.randn(out, device=device) if out != 8 else None for out in outs]
    x = torch.randn(rows, k, device=device)
    y = linear.Linear(weights, biases, activation="gelu", scale=3.0)(x)
    whole = torch.cat([bias if bias is not None else x.new_zeros(8) for bias in biases]).double()
    exact = torch.nn.functional.gelu(x.double() @ torch.cat(weights).double().T + whole) * 3
    assert_agree([y], [exact], 1e-6)
    whole_part = linear.Linear(weights[:1], [None], out_dtype=torch.float32)(x)
    assert_agree([whole_part], [x.double() @ weights[0].double().T], 1e-6)


@pytest.mark.parametrize("rows", [1, 3])
def test_what_is_not_finite_is_not_hidden(rows: int, device: torch.device) -> None:
    model = make(device, mlp_activation="relu2", tie_embeddings=False)
    model.embedding.weight[7, 0] = math.nan
    ids = torch.full((rows, 2), 3, device=device)
    ids[0, 0] = 7
    found = steps(Decoder(model, backend="triton"), ids, list(model.new_state(rows).layers))
    assert found[0].isnan().all()
    assert found[1:].isfinite().all()


def test_states_that_do_not_fit_are_errors_and_leave_the_others(device: torch.device) -> None:
    model = make(device, pattern="M*")
    ids = tokens(model, 2, 3)
    states, decoder = list(model.new_state(2).layers), Decoder(model, backend="triton")
    first = decoder.step(ids[:, 0], states)
    mamba, attended = states
    assert isinstance(mamba, MambaState)
    assert isinstance(attended, AttentionState)
    for wrong in (
        [attended, mamba],
        [mamba],
        [MambaState(mamba.conv[:, :, 1:], mamba.ssm), attended],
        [mamba, AttentionState(attended.buffer, 1, torch.zeros(3, dtype=torch.int64, device=device))],
        list(model.new_state(1).layers),
    ):
        with pytest.raises(ValueError, match=r"state|starts"):
            decoder.step(ids[:, 1], wrong)  # type: ignore[arg-type]
    rest = steps(decoder, ids[:, 1:], states)
    assert_agree([torch.cat([first[:, None], rest], 1)], [model.double()(ids).logits], 1e-5)


def test_what_the_kernels_do_not_take(device: torch.device) -> None:
    wrapped = make(device)
    wrapped.layers[0].mixer.x_proj = torch.nn.Sequential(wrapped.layers[0].mixer.x_proj)
    strided = make(device)
    strided.layers[2].mixer.up_proj.weight = torch.nn.Parameter(strided.layers[2].mixer.up_proj.weight.T.contiguous().T)
    for model in (make(device, torch.float64), wrapped, strided):
        with pytest.raises(ValueError, match="'triton': it needs plain weights"):
            Decoder(model, backend="triton")
        ids = tokens(model, 1, 2)
        assert steps(Decoder(model), ids, list(model.new_state(1).layers)).shape == (1, 2, 83)


@pytest.mark.parametrize("fault", ["", "wrong", "fails"])
def test_kernels_that_are_wrong_or_fail_are_left(
    fault: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, right = make(device, pattern="M").config, graph.Graphed.step
    config = HybridConfig(pattern="M", vocab_size=30, d_model=16, n_mamba_heads=2, headdim=8, d_state=8)

    def step(self: graph.Graphed, tokens: Tensor, states: list[LayerState]) -> Tensor:
        if fault == "fails":
            raise RuntimeError("out of resources")
        return right(self, tokens, states) * (1.1 if fault == "wrong" else 1)

    monkeypatch.setattr(graph.Graphed, "step", step)
    if not fault:
        assert selfcheck._passes.__wrapped__(config, device, torch.float32)
        return
    with pytest.warns(UserWarning, match="the slower torch path is used"):
        assert not selfcheck._passes.__wrapped__(config, device, torch.float32)


def test_a_text_survives_another_whose_states_cannot_be_copied(device: torch.device) -> None:
    lm = HybridLM(HybridConfig.preset("tiny")).to(device)
    ids = torch.randint(1, 100, (2, 4), device=device)
    decoder, mine = Decoder(lm, backend="triton"), list(lm.new_state(1).layers)
    for t in range(3):
        decoder.step(ids[:1, t], mine)
    broken = list(lm.new_state(1).layers)
    assert isinstance(broken[0], MambaState)
    broken[0] = MambaState(broken[0].conv, broken[0].ssm.to("meta"))
    with pytest.raises(NotImplementedError):
        decoder.step(ids[1:, 0], broken)
    logits = decoder.step(ids[:1, 3], mine)
    assert error(logits, lm(ids[:1]).last_logits()) <= 1e-4
