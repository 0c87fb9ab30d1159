"""transformers' Mamba2ForCausalLM is the oracle: same files, same function."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import HybridConfig, HybridLM, load_pretrained, save_pretrained
from model.checkpoints import load_config
from tests.model.checkpoints import oracle
from tests.model.compare import assert_agree, error

VARIANTS: dict[str, dict[str, Any]] = {
    "one group": {"n_groups": 1, "tie_word_embeddings": True},
    "groups, untied": {"n_groups": 4, "tie_word_embeddings": False},
    "biases": {"n_groups": 2, "use_bias": True, "use_conv_bias": False},
    "step limits": {"n_groups": 2, "time_step_limit": (0.05, 0.2), "layer_norm_epsilon": 1e-3},
    "a group for each head, an odd vocabulary": {"n_groups": 8, "vocab_size": 97, "tie_word_embeddings": False},
    "wide conv": {"n_groups": 1, "conv_kernel": 3, "residual_in_fp32": False, "chunk_size": 7},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_function_and_gradients(variant: str, tmp_path: Path) -> None:
    oracle.assert_same_function_and_gradients("Mamba2", oracle.make_mamba2(**VARIANTS[variant]), "hf-mamba2", tmp_path)


@pytest.mark.parametrize("variant", sorted(VARIANTS.keys() - {"step limits"}))
def test_same_greedy_tokens(variant: str, tmp_path: Path) -> None:
    # Not "step limits": one-token steps of transformers 5.23 leave the limits out, so that its own generation
    # differs from its own forward.
    oracle.assert_same_greedy_tokens(oracle.make_mamba2(**VARIANTS[variant]), tmp_path)


def test_sharded_files(tmp_path: Path) -> None:
    theirs = oracle.make_mamba2(tie_word_embeddings=False, n_groups=1)
    theirs.save_pretrained(tmp_path, max_shard_size="50KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    ours = load_pretrained(tmp_path)
    input_ids = torch.randint(0, 96, (2, 10))
    assert_agree([ours(input_ids).logits], [theirs(input_ids).logits], 1e-5)


def test_writing_back_gives_the_same_files(tmp_path: Path) -> None:
    theirs = oracle.make_mamba2(n_groups=2, tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path / "theirs")
    save_pretrained(load_pretrained(tmp_path / "theirs"), tmp_path / "ours", format="hf-mamba2")
    again = oracle.read("Mamba2", tmp_path / "ours")
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
        ({"intermediate_size": 256}, "intermediate_size is 256, but expand"),
    ],
)
def test_other_functions_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    oracle.make_mamba2().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


def test_the_fields_of_mamba_codestral(tmp_path: Path) -> None:
    """config.json of mistralai/Mamba-Codestral-7B-v0.1, written by transformers 4.44."""
    fields = {
        "_name_or_path": "codestral",
        "architectures": ["Mamba2ForCausalLM"],
        "bos_token_id": 0,
        "chunk_size": 256,
        "conv_kernel": 4,
        "eos_token_id": 0,
        "expand": 2,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.1,
        "intermediate_size": 8192,
        "layer_norm_epsilon": 1e-05,
        "logits_to_keep": 0,
        "model_type": "mamba2",
        "n_groups": 8,
        "norm_before_gate": True,
        "num_heads": 128,
        "num_hidden_layers": 64,
        "pad_token_id": 0,
        "rescale_prenorm_residual": False,
        "residual_in_fp32": True,
        "rms_norm": True,
        "state_size": 128,
        "tie_word_embeddings": False,
        "time_step_floor": 0.0001,
        "time_step_init_scheme": "random",
        "time_step_limit": [0.0, float("inf")],
        "time_step_max": 0.1,
        "time_step_min": 0.001,
        "time_step_rank": 256,
        "time_step_scale": 1.0,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.44.0.dev0",
        "use_bias": False,
        "use_cache": True,
        "use_conv_bias": True,
        "vocab_size": 32768,
    }
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert load_config(tmp_path).num_parameters() == 7_285_403_648


def test_the_names_of_mamba_codestral(tmp_path: Path) -> None:
    """Its files put `model.` before every name."""
    theirs = oracle.make_mamba2(n_groups=2, tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({f"model.{name}": tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    input_ids = torch.randint(0, 96, (2, 30))
    assert_agree([load_pretrained(tmp_path)(input_ids).logits], [theirs(input_ids).logits], 1e-5)


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


@pytest.mark.parametrize("residual_in_fp32", [True, False])
def test_in_bf16_the_residual_stream_has_the_precision_that_is_asked_for(
    tmp_path: Path, residual_in_fp32: bool
) -> None:
    theirs = oracle.make_mamba2(num_hidden_layers=6, residual_in_fp32=residual_in_fp32)
    theirs.save_pretrained(tmp_path)
    ours, ids = load_pretrained(tmp_path, dtype=torch.bfloat16), torch.randint(0, 96, (2, 50))
    seen = set()
    for block in ours.layers:
        block.register_forward_pre_hook(lambda module, inputs: seen.add(inputs[0].dtype))
    with torch.no_grad():
        exact, mine, half = theirs(ids).logits, ours(ids).logits, theirs.bfloat16()(ids).logits
    assert seen == {torch.float32 if residual_in_fp32 else torch.bfloat16}
    assert error(mine, exact) <= 2 * error(half, exact)
