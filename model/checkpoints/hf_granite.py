"""transformers' GraniteMoeHybridForCausalLM without experts: Bamba's layers, with multipliers, rotary or not."""

import math
from typing import Any

from model.checkpoints import layers
from model.checkpoints.format import Fields
from model.checkpoints.hf_bamba import SHARED_FIELDS, mamba_expand, mamba_head_dim, mixer_entries
from model.checkpoints.huggingface import (
    check_names,
    check_value,
    count,
    huggingface_format,
    layer_kinds,
    limits,
    mixers_of_pairs,
    pattern_of_pairs,
    read_rope,
    write_rope,
)
from model.checkpoints.keymap import Entry
from model.config import HybridConfig
from model.hybrid import HybridLM

_FIELDS = SHARED_FIELDS | {
    "shared_intermediate_size": "d_ff",
    "embedding_multiplier": "embedding_multiplier",
    "residual_multiplier": "residual_multiplier",
    "attention_multiplier": "attention_multiplier",
    "logits_scaling": "logits_scaling",
}
"""Fields that carry over as they are; every one must be there."""

_OPTIONAL = {
    "mamba_chunk_size": "chunk_size",
    "initializer_range": "initializer_range",
    "attention_bias": "attention_bias",
    "tie_word_embeddings": "tie_embeddings",
}

_OTHERS = (
    "num_hidden_layers",
    "num_local_experts",
    "mamba_expand",
    "mamba_d_head",
    "hidden_act",
    "layer_types",
    "layers_block_type",
    "position_embedding_type",
    "time_step_limit",
    "rope_parameters",
    "rope_theta",
    "rope_scaling",
    "partial_rotary_factor",
)

_WITHOUT_EFFECT = (
    # of the experts that there are none of
    "intermediate_size",
    "num_experts_per_tok",
    "output_router_logits",
    "router_aux_loss_coef",
    "init_method",
    "normalization_function",
)


def _read(fields: Fields) -> HybridConfig:
    check_names(fields, [*_FIELDS, "num_hidden_layers", "num_local_experts"], [*_OPTIONAL, *_OTHERS], _WITHOUT_EFFECT)
    if fields["num_local_experts"] != 0:
        raise ValueError(f"num_local_experts is {fields['num_local_experts']}: mixtures of experts are not supported")
    check_value(fields, "hidden_act", "silu", "swish")
    check_value(fields, "position_embedding_type", "rope", "nope", None)
    n_layers = count(fields, "num_hidden_layers")
    mixers = layer_kinds(fields.get("layer_types", fields.get("layers_block_type", ["mamba"] * n_layers)))
    if len(mixers) != n_layers or "-" in mixers:
        raise ValueError(f"layer_types gives {mixers!r}: it must name the mixer of each of the {n_layers} layers")
    rotary = fields.get("position_embedding_type") == "rope"
    return HybridConfig(
        pattern=pattern_of_pairs(mixers),
        mlp_activation="silu-gated",
        residual_in_fp32=False,
        headdim=mamba_head_dim(fields),
        dt_limit=limits(fields.get("time_step_limit", (0.0, math.inf))),
        **{"tie_embeddings": False} | {ours: fields[theirs] for theirs, ours in _OPTIONAL.items() if theirs in fields},
        **{ours: fields[theirs] for theirs, ours in _FIELDS.items()},
        **(_rope(fields) if rotary else {}),
    )


def _rope(fields: Fields) -> dict[str, Any]:
    """transformers rotates all channels, whatever partial_rotary_factor says, and fails if the rest is not default."""
    found = read_rope(fields)
    if found["rope_scaling"] is not None and found["partial_rotary_factor"] != 1.0:
        raise ValueError(
            f"partial_rotary_factor is {found['partial_rotary_factor']} beside a scaling of the frequencies: "
            "hf-granite has the one or the other"
        )
    return found | {"partial_rotary_factor": 1.0}


def _write(config: HybridConfig) -> Fields:
    kinds = {"M": "mamba", "*": "attention"}  # the names that servers know, and transformers of any age
    mixers = mixers_of_pairs(config)
    rotary = config.rope_theta is not None
    scale = config.attention_multiplier
    return {
        "architectures": ["GraniteMoeHybridForCausalLM"],
        "num_hidden_layers": len(mixers),
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "intermediate_size": config.d_ff,
        "layer_types": [kinds[mixer] for mixer in mixers],
        "hidden_act": "silu",
        "mamba_d_head": config.headdim,
        "mamba_expand": mamba_expand(config),
        "time_step_limit": list(config.dt_limit),
        "position_embedding_type": "rope" if rotary else None,
        "rope_parameters": write_rope(config) if rotary else None,
        **{theirs: getattr(config, ours) for theirs, ours in (_OPTIONAL | _FIELDS).items()},
        "mamba_n_heads": config.nheads,
        "attention_multiplier": 1 / math.sqrt(config.attention_head_dim) if scale is None else scale,
    }


def _entries(model: HybridLM) -> list[Entry]:
    mixers = mixers_of_pairs(model.config)
    return [
        Entry("model.embed_tokens.weight", ("embedding.weight",)),
        *(entry for i, mixer in enumerate(mixers) for entry in _pair(i, mixer)),
        Entry("model.norm.weight", ("norm.weight",)),
        layers.head("lm_head.weight", model.config.tie_embeddings),
    ]


def _pair(i: int, mixer: str) -> list[Entry]:
    theirs, ours, mlp = f"model.layers.{i}", f"layers.{2 * i}", f"layers.{2 * i + 1}"
    up = tuple(f"{mlp}.mixer.{name}.weight" for name in ("gate_proj", "up_proj"))
    return [
        Entry(f"{theirs}.input_layernorm.weight", (f"{ours}.norm.weight",)),
        *mixer_entries(mixer, theirs, f"{ours}.mixer"),
        Entry(f"{theirs}.post_attention_layernorm.weight", (f"{mlp}.norm.weight",)),
        Entry(f"{theirs}.shared_mlp.input_linear.weight", up),
        Entry(f"{theirs}.shared_mlp.output_linear.weight", (f"{mlp}.mixer.down_proj.weight",)),
    ]


FORMAT = huggingface_format("granitemoehybrid", _read, _write, _entries)
