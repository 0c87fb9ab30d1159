"""transformers' GraniteMoeHybridForCausalLM, without experts, is the oracle: same files, same function."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from model import HybridLM, load_pretrained, save_pretrained
from tests.model.checkpoints import oracle

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "shared_intermediate_size": 80,
    "num_local_experts": 0,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "mamba_n_heads": 8,
    "mamba_d_state": 16,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 16,
}
PLAIN = {"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "attention_multiplier": None, "logits_scaling": 1.0}
MULTIPLIERS = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.0625,
    "logits_scaling": 3.0,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "multipliers, tied": {**MULTIPLIERS, "tie_word_embeddings": True},
    "rotary": {"position_embedding_type": "rope", "num_key_value_heads": 4},
    "rotary, whatever part it tells": {
        "position_embedding_type": "rope",
        "rope_parameters": {"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.5},
    },
    "llama3 rope, multipliers": {**MULTIPLIERS, "position_embedding_type": "rope", "rope_parameters": oracle.LLAMA3},
    "yarn rope": {"position_embedding_type": "rope", "rope_parameters": oracle.YARN},
    "biases, one group": {
        "attention_bias": True,
        "mamba_proj_bias": True,
        "mamba_conv_bias": False,
        "mamba_n_groups": 1,
    },
    "step limits": {"time_step_limit": (0.05, 0.2), "rms_norm_eps": 1e-3, "mamba_n_groups": 8},
}


@pytest.mark.parametrize("format", ["native", "hf-granite", "hf-bamba", "hf-nemotron-h"])
def test_the_longest_context_and_names_of_layers_travel(format: str, tmp_path: Path) -> None:
    rotary = {"position_embedding_type": "rope"} if format == "hf-bamba" else {}
    theirs = oracle.make("GraniteMoeHybrid", **SIZES, **rotary, max_position_embeddings=12345)
    theirs.save_pretrained(tmp_path / "theirs")
    model = load_pretrained(tmp_path / "theirs")
    assert model.config.max_position_embeddings == 12345
    if format == "hf-nemotron-h":  # whose MLPs have no gate
        model = HybridLM(dataclasses.replace(model.config, mlp_activation="relu2", **PLAIN))
    elif format == "hf-bamba":
        model = HybridLM(dataclasses.replace(model.config, **PLAIN))
    save_pretrained(model, tmp_path / "out", format=format)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["max_position_embeddings"] == 12345
    if format == "hf-granite":
        assert written["layer_types"] == ["mamba", "attention", "mamba"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_function_and_gradients(variant: str, tmp_path: Path) -> None:
    theirs = oracle.make("GraniteMoeHybrid", **SIZES | VARIANTS[variant])
    oracle.assert_same_function_and_gradients("GraniteMoeHybrid", theirs, "hf-granite", tmp_path)


@pytest.mark.parametrize(
    "variant", ["plain", "multipliers, tied", "rotary", "rotary, whatever part it tells", "biases, one group"]
)
def test_same_greedy_tokens(variant: str, tmp_path: Path) -> None:
    oracle.assert_same_greedy_tokens(oracle.make("GraniteMoeHybrid", **SIZES | VARIANTS[variant]), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_local_experts": 4}, "num_local_experts is 4"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type is 'alibi'"),
        ({"layer_types": ["mamba"]}, "of each of the 3 layers"),
        ({"logits_scaling": 0.0}, "logits_scaling is 0.0"),
    ],
)
def test_other_functions_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    oracle.make("GraniteMoeHybrid", **SIZES).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=f"config.json: .*{message}"):
        load_pretrained(tmp_path)
