"""transformers' BambaForCausalLM: pairs of a mixer and a gated MLP, rotary embedding of half the channels."""

import math

from model.checkpoints import layers
from model.checkpoints.format import Fields
from model.checkpoints.huggingface import (
    check_names,
    check_value,
    count,
    huggingface_format,
    limits,
    mixers_of_pairs,
    pattern_of_pairs,
    read_rope,
    write_rope,
)
from model.checkpoints.keymap import Entry
from model.config import HybridConfig
from model.hybrid import HybridLM

SHARED_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "rms_norm_eps": "norm_eps",
    "mamba_n_heads": "n_mamba_heads",
    "mamba_n_groups": "n_groups",
    "mamba_d_state": "d_state",
    "mamba_d_conv": "d_conv",
    "mamba_conv_bias": "conv_bias",
    "mamba_proj_bias": "mamba_bias",
}
"""Fields that carry over as they are, in Granite's files too."""

_FIELDS = SHARED_FIELDS | {"intermediate_size": "d_ff"}
"""Every one must be there."""

_OPTIONAL = {
    "mamba_chunk_size": "chunk_size",
    "initializer_range": "initializer_range",
    "attention_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
    "tie_word_embeddings": "tie_embeddings",
}

_OTHERS = (
    "num_hidden_layers",
    "mamba_expand",
    "mamba_d_head",
    "hidden_act",
    "attn_layer_indices",
    "layers_block_type",
    "layer_types",
    "time_step_limit",
    "rope_parameters",
    "rope_theta",
    "rope_scaling",
    "partial_rotary_factor",
)


def _read(fields: Fields) -> HybridConfig:
    check_names(
        fields, [*_FIELDS, "num_hidden_layers"], [*_OPTIONAL, *_OTHERS], ["z_loss_coefficient", "attn_rotary_emb"]
    )
    check_value(fields, "hidden_act", "silu", "swish")
    n_layers, attention = count(fields, "num_hidden_layers"), fields.get("attn_layer_indices") or []
    if not isinstance(attention, list) or not all(isinstance(i, int) for i in attention):
        raise ValueError(f"attn_layer_indices is {attention!r}: it must be a list of numbers")
    return HybridConfig(
        pattern=pattern_of_pairs("*" if i in attention else "M" for i in range(n_layers)),
        mlp_activation="silu-gated",
        residual_in_fp32=False,
        headdim=mamba_head_dim(fields),
        dt_limit=limits(fields.get("time_step_limit", (0.0, math.inf))),
        **{"tie_embeddings": False} | {ours: fields[theirs] for theirs, ours in _OPTIONAL.items() if theirs in fields},
        **{ours: fields[theirs] for theirs, ours in _FIELDS.items()},
        **read_rope(fields, partial=0.5),
    )


def mamba_head_dim(fields: Fields) -> int:
    """mamba_d_head, which may be "auto".

    Raises:
        ValueError: the heads do not fill the inner width.
    """
    inner = fields.get("mamba_expand", 2) * fields["hidden_size"]
    given = fields.get("mamba_d_head", "auto")
    head_dim = inner // fields["mamba_n_heads"] if given == "auto" else given
    if head_dim * fields["mamba_n_heads"] != inner:
        raise ValueError(
            f"{fields['mamba_n_heads']} heads of {head_dim} do not make mamba_expand * hidden_size = {inner}"
        )
    return int(head_dim)


def mamba_expand(config: HybridConfig) -> int:
    """The whole number of times that the mixer is wider than the model.

    Raises:
        ValueError: it is not whole.
    """
    if config.d_inner % config.d_model:
        raise ValueError(f"the inner width {config.d_inner} is no multiple of d_model {config.d_model}")
    return config.d_inner // config.d_model


def _write(config: HybridConfig) -> Fields:
    if config.rope_theta is None and "*" in config.layers:
        raise ValueError("rope_theta is None, which hf-bamba cannot express: its attention is rotary")
    return {
        "architectures": ["BambaForCausalLM"],
        "num_hidden_layers": len(mixers_of_pairs(config)),
        "attn_layer_indices": [i for i, mixer in enumerate(mixers_of_pairs(config)) if mixer == "*"],
        "hidden_act": "silu",
        "mamba_d_head": config.headdim,
        "mamba_expand": mamba_expand(config),
        "time_step_limit": list(config.dt_limit),
        "rope_parameters": write_rope(config) if config.rope_theta else None,
        **{theirs: getattr(config, ours) for theirs, ours in (_OPTIONAL | _FIELDS).items()},
        "mamba_n_heads": config.nheads,
    }


def _entries(model: HybridLM) -> list[Entry]:
    mixers = mixers_of_pairs(model.config)
    return [
        Entry("model.embed_tokens.weight", ("embedding.weight",)),
        *(entry for i, mixer in enumerate(mixers) for entry in _pair(i, mixer)),
        Entry("model.final_layernorm.weight", ("norm.weight",)),
        layers.head("lm_head.weight", model.config.tie_embeddings),
    ]


def _pair(i: int, mixer: str) -> list[Entry]:
    theirs, ours, mlp = f"model.layers.{i}", f"layers.{2 * i}", f"layers.{2 * i + 1}"
    return [
        Entry(f"{theirs}.input_layernorm.weight", (f"{ours}.norm.weight",)),
        *mixer_entries(mixer, theirs, f"{ours}.mixer"),
        Entry(f"{theirs}.pre_ff_layernorm.weight", (f"{mlp}.norm.weight",)),
        *layers.same_names(f"{theirs}.feed_forward", f"{mlp}.mixer", "gate_proj", "up_proj", "down_proj"),
    ]


def mixer_entries(mixer: str, theirs: str, ours: str) -> list[Entry]:
    """The mixer of a decoder layer."""
    if mixer == "M":
        return layers.mamba(f"{theirs}.mamba", ours)
    return layers.attention(f"{theirs}.self_attn", ours)


FORMAT = huggingface_format("bamba", _read, _write, _entries)
