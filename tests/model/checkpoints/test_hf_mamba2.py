"""transformers' Mamba2ForCausalLM is the oracle: same files, same function."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model import HybridConfig, HybridLM, generate, load_pretrained, save_pretrained
from tests.model.compare import assert_agree, error

# Older ones (seen: 5.17) compute another function where n_groups is above 1.
transformers = pytest.importorskip("transformers", minversion="5.23")

VARIANTS: dict[str, dict[str, Any]] = {
    "one group": {"n_groups": 1, "tie_word_embeddings": True},
    "groups, untied": {"n_groups": 4, "tie_word_embeddings": False},
    "biases": {"n_groups": 2, "use_bias": True, "use_conv_bias": False},
    "step limits": {"n_groups": 2, "time_step_limit": (0.05, 0.2), "layer_norm_epsilon": 1e-3},
    "wide conv": {"n_groups": 1, "conv_kernel": 3, "residual_in_fp32": False, "chunk_size": 7},
}


def make_theirs(**options: Any) -> Any:
    fields = {
        "num_heads": 8,
        "head_dim": 16,
        "vocab_size": 96,
        "hidden_size": 64,
        "state_size": 16,
        "num_hidden_layers": 3,
        "chunk_size": 16,
        **options,
    }
    theirs = transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**fields)).eval()
    for name, parameter in theirs.named_parameters():
        if "A_log" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return theirs


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_function_and_gradients(variant: str, tmp_path: Path) -> None:
    theirs = make_theirs(**VARIANTS[variant])
    theirs.save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path)
    input_ids = torch.randint(0, 96, (2, 50))

    expected, actual = theirs(input_ids, labels=input_ids), ours(input_ids, labels=input_ids)
    assert_agree([actual.logits, actual.loss], [expected.logits, expected.loss], 1e-5)

    expected.loss.backward()
    actual.loss.backward()
    with torch.no_grad():
        for model in (theirs, ours):
            for parameter in model.parameters():
                parameter.copy_(parameter.grad)
    save_pretrained(ours, tmp_path / "gradients", format="hf-mamba2")
    gradients = transformers.Mamba2ForCausalLM.from_pretrained(tmp_path / "gradients").state_dict()
    for name, gradient in theirs.state_dict().items():
        assert error(gradients[name], gradient) <= 1e-5, name


@pytest.mark.parametrize("variant", ["one group", "groups, untied", "biases", "wide conv"])
def test_same_greedy_tokens(variant: str, tmp_path: Path) -> None:
    # Not "step limits": one-token steps of transformers 5.23 leave the limits out, so that its own generation
    # differs from its own forward.
    theirs = make_theirs(**VARIANTS[variant])
    theirs.save_pretrained(tmp_path)
    prompt = torch.randint(0, 96, (1, 9))
    expected = theirs.generate(prompt, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(generate(load_pretrained(tmp_path), prompt, max_new_tokens=20), expected)


def test_sharded_files(tmp_path: Path) -> None:
    theirs = make_theirs(tie_word_embeddings=False, n_groups=1)
    theirs.save_pretrained(tmp_path, max_shard_size="50KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    ours = load_pretrained(tmp_path)
    input_ids = torch.randint(0, 96, (2, 10))
    assert_agree([ours(input_ids).logits], [theirs(input_ids).logits], 1e-5)


def test_writing_back_gives_the_same_files(tmp_path: Path) -> None:
    theirs = make_theirs(n_groups=2, tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path / "theirs")
    save_pretrained(load_pretrained(tmp_path / "theirs"), tmp_path / "ours", format="hf-mamba2")
    again = transformers.Mamba2ForCausalLM.from_pretrained(tmp_path / "ours")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert again.config.n_groups == 2
    assert tuple(again.config.time_step_limit) == tuple(theirs.config.time_step_limit)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rms_norm": False}, "rms_norm is false"),
        ({"sliding_window": 4}, r"unknown fields \['sliding_window'\]"),
        ({"num_heads": 4}, "num_heads is 4"),
    ],
)
def test_other_functions_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    make_theirs().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"pattern": "M-"}, "layers other than M"), ({"norm_before_gate": True}, "norm_before_gate is true")],
)
def test_inexpressible_models_are_not_written(
    tiny: HybridConfig, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    model = HybridLM(dataclasses.replace(tiny, **{"pattern": "M", **changes}))
    with pytest.raises(ValueError, match=message):
        save_pretrained(model, tmp_path / "out", format="hf-mamba2")
    assert not (tmp_path / "out").exists()
