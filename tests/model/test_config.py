"""The configuration: published sizes, parameter counts, validation."""

import dataclasses
import json
import math

import pytest
import torch

from model import PRESETS, HybridConfig, HybridLM

PARAMETERS = {
    "mamba2-130m": 128_989_632,
    "mamba2-370m": 368_346_624,
    "mamba2-780m": 780_161_280,
    "mamba2-1.3b": 1_343_757_312,
    "mamba2-2.7b": 2_702_599_680,
    "mamba2-8b": 8_236_999_680,
    "mamba2-hybrid-8b": 8_654_517_248,
    "nemotron-h-8b": 8_100_852_736,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts(name: str) -> None:
    config = HybridConfig.preset(name)
    assert config.num_parameters() == PARAMETERS[name]
    with torch.device("meta"):
        model = HybridLM(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_layer_counts_of_the_8b_models() -> None:
    hybrid, nemotron = PRESETS["mamba2-hybrid-8b"].layers, PRESETS["nemotron-h-8b"].layers
    assert [hybrid.count(symbol) for symbol in "M*-"] == [24, 4, 28]
    assert [nemotron.count(symbol) for symbol in "M*-"] == [24, 4, 24]


@pytest.mark.parametrize(
    "changes",
    [
        {"mamba_bias": True, "attention_bias": True, "mlp_bias": True},
        {"conv_bias": False, "tie_embeddings": False, "n_groups": 2},
        {"mlp_activation": "silu-gated", "mlp_bias": True, "head_dim": 8},
    ],
)
def test_options_are_counted(tiny: HybridConfig, changes: dict[str, object]) -> None:
    config = dataclasses.replace(tiny, **changes)
    assert config.num_parameters() == sum(parameter.numel() for parameter in HybridLM(config).parameters())


def test_stage_boundaries_make_no_layer(tiny: HybridConfig) -> None:
    cut = dataclasses.replace(tiny, pattern="M-|M*-|M-")
    assert cut.layers == tiny.layers
    assert cut.num_parameters() == tiny.num_parameters()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": "MX"}, r"unknown symbols \['X'\]"),
        ({"pattern": "|"}, "has no layer"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"headdim": 48}, "headdim 48 does not divide"),
        ({"n_groups": 3}, "n_groups 3 does not divide"),
        ({"d_conv": 1}, "d_conv is 1"),
        ({"dt_min": 1.0}, "dt_min 1.0 is above dt_max"),
        ({"dt_limit": (1.0, 0.5)}, "dt_limit is"),
        ({"n_heads": 6}, "n_heads 6 does not divide d_model 64"),
        ({"n_kv_heads": 3}, "n_kv_heads 3 does not divide"),
        ({"rope_theta": 1e4, "head_dim": 15}, "even number of rotated channels"),
        ({"d_ff": 0}, "d_ff is 0"),
        ({"mlp_activation": "relu"}, "mlp_activation is 'relu'"),
        ({"head_dim": -1}, "head_dim is -1"),
        ({"vocab_size": 10**12}, r"vocab_size is 1000000000000: it must be positive, and at most 2,147,483,648"),
        ({"d_conv": 10**30}, "d_conv is 1000"),
        ({"norm_eps": math.nan}, "norm_eps is nan"),
        ({"initializer_range": math.nan}, "initializer_range is nan"),
        ({"dt_init_floor": 10**30}, "dt_init_floor is 1000"),
        ({"logits_scaling": math.inf}, "logits_scaling is inf"),
        ({"residual_multiplier": math.nan}, "residual_multiplier is nan"),
        ({"attention_multiplier": math.inf}, "attention_multiplier is inf"),
    ],
)
def test_mistakes_are_named(tiny: HybridConfig, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny, **changes)


def test_dict_round_trip_through_json() -> None:
    for config in (*PRESETS.values(), dataclasses.replace(PRESETS["tiny"], dt_limit=(0.01, 0.5))):
        assert HybridConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_dict_must_be_complete(tiny: HybridConfig) -> None:
    fields = tiny.to_dict()
    del fields["d_state"]
    with pytest.raises(ValueError, match=r"unknown fields \['d_sate'\] and misses \['d_state'\]"):
        HybridConfig.from_dict({**fields, "d_sate": 16})


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match="no preset 'mamba3': choose one of mamba2-130m"):
        HybridConfig.preset("mamba3")
