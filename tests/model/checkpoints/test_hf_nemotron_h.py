"""transformers' NemotronHForCausalLM is the oracle: same files, same function."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model import PRESETS, HybridConfig, HybridLM, load_pretrained, save_pretrained
from tests.model.checkpoints import oracle
from tests.model.compare import assert_agree

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 80,
    "ssm_state_size": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "chunk_size": 16,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "hybrid": {"hybrid_override_pattern": "M-*M-"},
    "heads of their own number": {"hybrid_override_pattern": "MM*", "mamba_num_heads": 6, "head_dim": 24},
    "eight groups, biases": {"hybrid_override_pattern": "M-*", "n_groups": 8, "use_bias": True, "mlp_bias": True},
    "gelu, no conv bias": {"hybrid_override_pattern": "-M*", "mlp_hidden_act": "gelu", "use_conv_bias": False},
    "large steps": {"hybrid_override_pattern": "MM*", "time_step_min": 0.3, "layer_norm_epsilon": 1e-3},
    "one group, residual in fp32": {"hybrid_override_pattern": "M*", "n_groups": 1, "residual_in_fp32": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_function_and_gradients(variant: str, tmp_path: Path) -> None:
    theirs = oracle.make("NemotronH", **SIZES | VARIANTS[variant])
    oracle.assert_same_function_and_gradients("NemotronH", theirs, "hf-nemotron-h", tmp_path)


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_greedy_tokens(variant: str, tmp_path: Path) -> None:
    oracle.assert_same_greedy_tokens(oracle.make("NemotronH", **SIZES | VARIANTS[variant]), tmp_path)


def test_both_prefixes_and_both_spellings_of_the_pattern_are_read(tmp_path: Path) -> None:
    theirs = oracle.make("NemotronH", **SIZES, hybrid_override_pattern="M-*")
    theirs.save_pretrained(tmp_path)
    expected = load_pretrained(tmp_path).state_dict()
    from safetensors.torch import load_file, save_file

    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        {name.replace("backbone.", "model."): tensor for name, tensor in tensors.items()},
        tmp_path / "model.safetensors",
    )
    file = tmp_path / "config.json"
    fields = json.loads(file.read_text())
    del fields["layers_block_type"]
    file.write_text(
        json.dumps(fields | {"hybrid_override_pattern": "M-*", "attention_head_dim": fields.pop("head_dim")})
    )
    for name, tensor in load_pretrained(tmp_path).state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_nvidias_hybrid_exports(tmp_path: Path) -> None:
    """Its pattern, groups, GELU and ratios, at a size that fits; the head may even be tied."""
    big = PRESETS["mamba2-hybrid-8b"]
    for tied in (False, True):
        config = dataclasses.replace(
            big,
            d_model=128,
            vocab_size=160,
            d_state=16,
            headdim=16,
            n_heads=8,
            head_dim=16,
            d_ff=512,
            tie_embeddings=tied,
        )
        model = HybridLM(config).eval()
        save_pretrained(model, tmp_path, format="hf-nemotron-h")
        theirs = oracle.read("NemotronH", tmp_path)
        assert theirs.config.hybrid_override_pattern == big.pattern
        input_ids = torch.randint(0, 160, (1, 40))
        assert_agree([theirs(input_ids).logits], [model(input_ids).logits], 1e-5)


def test_the_full_size_has_the_same_number_of_parameters() -> None:
    from model.checkpoints.hf_nemotron_h import FORMAT

    for name in ("mamba2-hybrid-8b", "nemotron-h-8b"):
        fields = FORMAT.write_config(PRESETS[name])
        assert FORMAT.reread(fields).num_parameters() == PRESETS[name].num_parameters()
        config = oracle.transformers.NemotronHConfig(**{k: v for k, v in fields.items() if k != "model_type"})
        with torch.device("meta"):
            theirs = oracle.transformers.NemotronHForCausalLM(config)
        assert sum(parameter.numel() for parameter in theirs.parameters()) == PRESETS[name].num_parameters()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers_block_type": ["moe"]}, "layer type 'moe' is not supported"),
        ({"layers_block_type": "M"}, "must name the type of each layer"),
        ({"hybrid_override_pattern": "M-M"}, "'M-M', but the list of layer types says 'M-[*]'"),
        ({"mlp_hidden_act": "silu"}, "mlp_hidden_act is 'silu'"),
        ({"sliding_window": 4}, "sliding_window is 4"),
        ({"mamba_num_heads": "8"}, "n_mamba_heads is '8': it must be of type int"),
        ({"new_thing": 1}, r"unknown fields \['new_thing'\]"),
    ],
)
def test_other_functions_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    oracle.make("NemotronH", **SIZES, hybrid_override_pattern="M-*").save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=f"config.json: .*{message}"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlp_activation": "silu-gated"}, "mlp_activation is 'silu-gated'"),
        ({"rope_theta": 1e4}, "rope_theta = 10000.0"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"dt_limit": (0.0, 0.5)}, "no upper limit"),
        ({"logits_scaling": 2.0}, "logits_scaling = 2.0"),
        ({"norm_before_gate": True}, "norm_before_gate = True"),
    ],
)
def test_inexpressible_models_are_not_written(
    tiny: HybridConfig, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        save_pretrained(HybridLM(dataclasses.replace(tiny, **changes)), tmp_path / "out", format="hf-nemotron-h")
    assert not (tmp_path / "out").exists()
