"""transformers' BambaForCausalLM is the oracle: same files, same function."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model import HybridConfig, HybridLM, load_pretrained, save_pretrained
from tests.model.checkpoints import oracle
from tests.model.compare import assert_agree

SIZES = {
    "vocab_size": 97,
    "pad_token_id": None,  # else the gradient of that token's embedding is left out
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attn_layer_indices": [1],
    "mamba_n_heads": 8,
    "mamba_d_state": 16,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 16,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied, eight groups": {"tie_word_embeddings": True, "mamba_n_groups": 8},
    "biases": {"attention_bias": True, "mlp_bias": True, "mamba_proj_bias": True, "mamba_conv_bias": False},
    "few wide heads": {"mamba_n_heads": 2, "mamba_n_groups": 1, "num_key_value_heads": 4, "mamba_expand": 1},
    "step limits": {"time_step_limit": (0.05, 0.2), "rms_norm_eps": 1e-3},
    "linear rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0}},
    "llama3 rope": {"rope_parameters": oracle.LLAMA3},
    "yarn rope": {"rope_parameters": oracle.YARN | {"beta_fast": 8.0, "truncate": False}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_function_and_gradients(variant: str, tmp_path: Path) -> None:
    theirs = oracle.make("Bamba", **SIZES | VARIANTS[variant])
    oracle.assert_same_function_and_gradients("Bamba", theirs, "hf-bamba", tmp_path)


@pytest.mark.parametrize("variant", ["plain", "tied, eight groups", "biases", "few wide heads", "yarn rope"])
def test_same_greedy_tokens(variant: str, tmp_path: Path) -> None:
    oracle.assert_same_greedy_tokens(oracle.make("Bamba", **SIZES | VARIANTS[variant]), tmp_path)


EDITS: dict[str, dict[str, Any]] = {
    "a part of its own": {"partial_rotary_factor": 1.0},
    "the older manner": {"rope_parameters": None, "rope_theta": 50.0, "partial_rotary_factor": 0.25},
    "both manners": {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 50.0},
    "yarn with nothing for something": {"rope_parameters": oracle.YARN | {"beta_fast": None}},
}
"""Of config.json, as people make them by hand."""


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_configuration_is_what_they_read(edit: str, tmp_path: Path) -> None:
    oracle.make("Bamba", **SIZES).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | EDITS[edit]))
    input_ids = torch.randint(0, SIZES["vocab_size"], (1, 50))
    expected = oracle.read("Bamba", tmp_path)(input_ids).logits
    assert_agree([load_pretrained(tmp_path)(input_ids).logits], [expected], 1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": {"rope_type": "linear", "factor": "4"}}, "factor of the rope scaling is '4'"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic' is not supported"),
        ({"rope_parameters": oracle.YARN | {"mscale": 2.0}}, r"rope parameters \['mscale'\]"),
        ({"mamba_d_head": 4}, "8 heads of 4 do not make"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"attn_layer_indices": "1"}, "attn_layer_indices is '1'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"time_step_limit": [1]}, "time_step_limit is"),
    ],
)
def test_other_functions_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    oracle.make("Bamba", **SIZES).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=f"config.json: .*{message}"):
        load_pretrained(tmp_path)


GATED = {"pattern": "M-*-", "mlp_activation": "silu-gated", "rope_theta": 1e4, "d_state": 16}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": "M-M"}, "pairs"),
        ({"pattern": "MM-"}, "pairs"),
        ({"rope_theta": None}, "its attention is rotary"),
        ({"mlp_activation": "gelu"}, "mlp_activation = 'gelu'"),
        ({"head_dim": 8, "attention_multiplier": 0.25}, "head_dim = 8"),
        ({"residual_multiplier": 0.5}, "residual_multiplier = 0.5"),
        ({"n_mamba_heads": 5}, "no multiple of d_model"),
    ],
)
def test_inexpressible_models_are_not_written(
    tiny: HybridConfig, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = dataclasses.replace(tiny, **GATED | changes)
    with pytest.raises(ValueError, match=message):
        save_pretrained(HybridLM(config), tmp_path / "out", format="hf-bamba")
    assert not (tmp_path / "out").exists()
