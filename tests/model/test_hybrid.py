"""The whole model: loss, state, initialisation, precision."""

import dataclasses
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model import HybridConfig, HybridLM
from tests.model.compare import assert_agree, error


def make_ids(device: torch.device, batch: int = 2, seqlen: int = 45) -> Tensor:
    return torch.randint(0, 512, (batch, seqlen), device=device)


def random_configs() -> list[HybridConfig]:
    draw = random.Random(0)
    configs = []
    for _ in range(6):
        configs.append(
            HybridConfig(
                pattern="".join(draw.choice("M*-") for _ in range(draw.randint(1, 4))),
                vocab_size=512,
                d_model=32,
                d_state=draw.choice([4, 16]),
                headdim=8,
                n_groups=draw.choice([1, 2]),
                d_conv=draw.choice([2, 4]),
                conv_bias=draw.random() < 0.5,
                mamba_bias=draw.random() < 0.5,
                dt_limit=draw.choice([(0.0, math.inf), (0.01, 0.05)]),
                norm_before_gate=draw.random() < 0.5,
                n_heads=4,
                n_kv_heads=draw.choice([1, 2, 4]),
                head_dim=draw.choice([None, 16]),
                rope_theta=draw.choice([None, 1e4]),
                attention_bias=draw.random() < 0.5,
                d_ff=48,
                mlp_activation=draw.choice(["gelu", "relu2", "silu-gated"]),
                mlp_bias=draw.random() < 0.5,
                tie_embeddings=draw.random() < 0.5,
            )
        )
    return configs


def test_loss_is_the_next_token_cross_entropy(tiny: HybridConfig, device: torch.device) -> None:
    model, input_ids = HybridLM(tiny).to(device), make_ids(device)
    labels = input_ids.clone()
    labels[0, :10] = -100
    output = model(input_ids, labels=labels)
    expected = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert_agree([output.loss], [expected], 1e-6)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(output.loss, parameters, retain_graph=True)
    for name, actual, wanted in zip(names, gradients, torch.autograd.grad(expected, parameters), strict=True):
        assert error(actual, wanted) < 1e-4, name


def test_no_target_counts(tiny: HybridConfig, device: torch.device) -> None:
    model, input_ids = HybridLM(tiny).to(device), make_ids(device)
    loss = model(input_ids, labels=torch.full_like(input_ids, -100)).loss
    loss.backward()
    assert loss == 0
    assert all(not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("config", random_configs(), ids=lambda config: config.pattern)
def test_prefill_then_step_equals_the_full_forward(config: HybridConfig, device: torch.device) -> None:
    model, input_ids = HybridLM(config).to(device).double(), make_ids(device, seqlen=30)
    with torch.no_grad():
        expected = model(input_ids).logits
        state, logits = model.new_state(2), []
        for start, end in ((0, 13), (13, 14), (14, 27), (27, 28), (28, 29), (29, 30)):
            output = model(input_ids[:, start:end], state=state)
            state = output.state
            logits.append(output.logits)
    assert_agree([torch.cat(logits, dim=1)], [expected], 1e-9)


def test_cloned_states_branch(tiny: HybridConfig, device: torch.device) -> None:
    model, input_ids = HybridLM(tiny).to(device), make_ids(device)
    with torch.no_grad():
        state = model(input_ids[:, :20], state=model.new_state(2)).state
        first = model(input_ids[:, 20:22], state=state.clone()).logits
        model(input_ids[:, 30:35], state=state.clone())
        assert torch.equal(model(input_ids[:, 20:22], state=state).logits, first)


def test_chunk_size_does_not_matter(tiny: HybridConfig, device: torch.device) -> None:
    input_ids, losses = make_ids(device), []
    for chunk_size in (1, 16, 256):
        torch.manual_seed(0)
        model = HybridLM(dataclasses.replace(tiny, chunk_size=chunk_size)).to(device).double()
        losses.append(model(input_ids, labels=input_ids).loss)
    assert_agree(losses[1:], losses[:1] * 2, 1e-12)


def test_initialisation(device: torch.device) -> None:
    config = HybridConfig.preset("tiny")
    torch.manual_seed(7)
    first = HybridLM(config).state_dict()
    torch.manual_seed(7)
    model = HybridLM(config)
    assert all(torch.equal(first[name], tensor) for name, tensor in model.state_dict().items())
    scan = model.layers[0].mixer.scan
    A, dt = scan.A_log.exp(), F.softplus(scan.dt_bias)
    assert A.min() >= 1
    assert A.max() <= 16
    assert dt.min() >= 0.99 * config.dt_min
    assert dt.max() <= 1.01 * config.dt_max
    spread = model.layers[0].mixer.out_proj.weight.std().item() * math.sqrt(config.n_layers)
    assert spread == pytest.approx(config.initializer_range, rel=0.1)


def test_decay_parameters(tiny: HybridConfig) -> None:
    model = HybridLM(dataclasses.replace(tiny, mamba_bias=True, tie_embeddings=False))
    decayed = model.decay_parameters()
    names = dict(model.named_parameters())
    assert decayed <= names.keys()
    assert {"embedding.weight", "head.weight", "layers.0.mixer.x_proj.weight"} <= decayed
    others = {name.rpartition(".")[2] for name in names.keys() - decayed if "norm" not in name and "conv" not in name}
    assert others == {"A_log", "D", "dt_bias", "bias"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_scan_in_fp32(tiny: HybridConfig, device: torch.device, dtype: torch.dtype) -> None:
    model, input_ids = HybridLM(tiny).to(device), make_ids(device)
    A_log = model.layers[0].mixer.scan.A_log.detach().clone()
    expected = model(input_ids, labels=input_ids).loss
    model.to(dtype)
    scan = model.layers[0].mixer.scan
    assert {scan.A_log.dtype, scan.D.dtype, scan.dt_bias.dtype} == {torch.float32}
    assert torch.equal(scan.A_log, A_log)
    assert model.layers[0].mixer.x_proj.weight.dtype == dtype
    output = model(input_ids, labels=input_ids)
    output.loss.backward()
    assert_agree([output.loss], [expected], 0.02)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    state = model(input_ids[:, :5], state=model.new_state(2)).state
    assert state.layers[0].ssm.dtype == torch.float32


def test_a_model_of_nothing_but_shapes(tiny: HybridConfig) -> None:
    """On meta, where memory and FLOP of a model are counted without it."""
    model, input_ids = HybridLM(tiny).to("meta"), torch.zeros(2, 9, dtype=torch.long, device="meta")
    model(input_ids, labels=input_ids).loss.backward()
    assert all(parameter.grad.is_meta for parameter in model.parameters())
    with torch.no_grad():
        logits = model(input_ids).logits
    assert logits.is_meta
    assert logits.shape == (2, 9, tiny.vocab_size)


def test_autocast_is_close_to_fp32(tiny: HybridConfig, device: torch.device) -> None:
    model, input_ids = HybridLM(tiny).to(device), make_ids(device)

    def step(enabled: bool) -> tuple[Tensor, list[Tensor]]:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
            loss = model(input_ids, labels=input_ids).loss
        return loss, list(torch.autograd.grad(loss, list(model.parameters())))

    loss, gradients = step(True)
    expected_loss, expected = step(False)
    assert loss.dtype == torch.float32
    assert_agree([loss], [expected_loss], 0.01)
    for actual, wanted in zip(gradients, expected, strict=True):
        assert F.cosine_similarity(actual.flatten(), wanted.flatten(), dim=0) > 0.98


def test_logits_can_be_read_after_autocast_and_inference_mode(tiny: HybridConfig, device: torch.device) -> None:
    model, ids = HybridLM(tiny).to(device), make_ids(device)
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
        output, inside = model(ids), model(ids).logits
    assert torch.equal(output.logits, inside)
    assert not output.logits.requires_grad


def test_errors_say_what_to_do(tiny: HybridConfig, device: torch.device) -> None:
    model, input_ids = HybridLM(tiny).to(device), make_ids(device)
    with pytest.raises(ValueError, match="must be \\(batch, seqlen\\)"):
        model(input_ids[0])
    with pytest.raises(ValueError, match="labels is"):
        model(input_ids, labels=input_ids[:, 1:])
    with pytest.raises(ValueError, match="pass seq_idx or state, not both"):
        model(input_ids, seq_idx=torch.zeros_like(input_ids), state=model.new_state(2))


def test_needs_only_torch_and_safetensors() -> None:
    barred = {"dvc", "mlflow", "polars", "omegaconf", "ray", "transformers", "numpy", "tokenizers", "yaml"}
    code = f"import sys, torch; before = {{*sys.modules}}; import model; print({barred} & ({{*sys.modules}} - before))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_step_repeats_bitwise_where_only_deterministic_operators_are_allowed(device: torch.device) -> None:
    config = dataclasses.replace(HybridConfig.preset("tiny"), pattern="M*-M", d_ff=64, n_heads=4, n_kv_heads=2)
    model, ids = HybridLM(config).to(device), make_ids(device, seqlen=150)
    seq_idx = (torch.arange(150, device=device, dtype=torch.int32) // 60).expand(2, -1)
    gradients = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            model.zero_grad()
            model(ids, labels=ids, seq_idx=seq_idx).loss.backward()
            gradients.append([parameter.grad for parameter in model.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))
