"""transformers' NemotronHForCausalLM: the pattern is spelled out, attention has no position embedding."""

import math
from typing import Any

from model.checkpoints import layers
from model.checkpoints.format import Fields
from model.checkpoints.huggingface import check_names, check_value, huggingface_format, layer_kinds, limits
from model.checkpoints.keymap import Entry
from model.config import HybridConfig
from model.hybrid import HybridLM

_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "ssm_state_size": "d_state",
    "mamba_head_dim": "headdim",
    "mamba_num_heads": "n_mamba_heads",
    "n_groups": "n_groups",
    "conv_kernel": "d_conv",
    "use_conv_bias": "conv_bias",
    "use_bias": "mamba_bias",
    "chunk_size": "chunk_size",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "intermediate_size": "d_ff",
    "mlp_bias": "mlp_bias",
    "layer_norm_epsilon": "norm_eps",
}
"""Fields that carry over as they are; every one must be there."""

_OPTIONAL = {
    "residual_in_fp32": "residual_in_fp32",
    "initializer_range": "initializer_range",
    "time_step_max": "dt_max",
    "time_step_floor": "dt_init_floor",
}

_ACTIVATIONS = {"relu2": "relu2", "gelu": "gelu"}
_NEGLIGIBLE = 1e-30
"""transformers never lets a step be smaller than time_step_min, and cannot take a logarithm of 0 for it."""

_WITHOUT_EFFECT = (
    "expand",  # mamba_num_heads * mamba_head_dim is the inner width
    "time_step_limit",  # not read by transformers, which clamps at time_step_min
    "time_step_rank",
    "mamba_proj_bias",
    "mamba_ssm_cache_dtype",
    "attention_bias",  # its attention has none, whatever this says
    "num_hidden_layers",
    "num_query_groups",
    "rms_norm_eps",
    "is_hybrid_model",
    # of mixtures of experts and of drafts, which have layers of their own kind
    "moe_intermediate_size",
    "moe_latent_size",
    "moe_shared_expert_intermediate_size",
    "moe_shared_expert_overlap",
    "mtp_hybrid_override_pattern",
    "mtp_layers_block_type",
    "n_group",
    "n_routed_experts",
    "n_shared_experts",
    "norm_topk_prob",
    "num_experts_per_tok",
    "num_nextn_predict_layers",
    "output_router_logits",
    "routed_scaling_factor",
    "topk_group",
    # its head is a matrix of its own, whatever this says
    "tie_word_embeddings",
)


def _read(fields: Fields) -> HybridConfig:
    optional = (
        *_OPTIONAL,
        "hybrid_override_pattern",
        "layers_block_type",
        "layer_types",
        "head_dim",
        "attention_head_dim",
        "mlp_hidden_act",
        "mamba_hidden_act",
        "sliding_window",
        "time_step_min",
    )
    check_names(fields, _FIELDS, optional, _WITHOUT_EFFECT)
    check_value(fields, "mamba_hidden_act", "silu", "swish")
    check_value(fields, "sliding_window", None)
    check_value(fields, "mlp_hidden_act", *_ACTIVATIONS)
    smallest = fields.get("time_step_min", 1e-3)
    return HybridConfig(
        pattern=_pattern(fields),
        tie_embeddings=False,
        mlp_activation=_ACTIVATIONS[fields.get("mlp_hidden_act", "relu2")],  # type: ignore[arg-type]
        dt_limit=limits((0.0 if smallest <= _NEGLIGIBLE else smallest, math.inf)),
        dt_min=min(max(smallest, 1e-4), fields.get("time_step_max", 0.1)),
        head_dim=fields.get("head_dim", fields.get("attention_head_dim", 128)),
        **{ours: fields[theirs] for theirs, ours in _FIELDS.items()},
        **{ours: fields[theirs] for theirs, ours in _OPTIONAL.items() if theirs in fields},
    )


def _pattern(fields: Fields) -> str:
    listed: Any = fields.get("layers_block_type", fields.get("layer_types"))
    spelled = fields.get("hybrid_override_pattern")
    if listed is None:
        if not isinstance(spelled, str):
            raise ValueError("the configuration has neither layers_block_type nor hybrid_override_pattern")
        if "E" in spelled:
            raise ValueError(f"hybrid_override_pattern {spelled!r}: mixtures of experts (E) are not supported")
        return spelled
    pattern = layer_kinds(listed)
    if spelled is not None and spelled != pattern:
        raise ValueError(f"hybrid_override_pattern is {spelled!r}, but the list of layer types says {pattern!r}")
    return pattern


def _write(config: HybridConfig) -> Fields:
    activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    if "-" in config.layers and config.mlp_activation not in activations:
        raise ValueError(f"mlp_activation is {config.mlp_activation!r}, which hf-nemotron-h cannot express")
    if not math.isinf(config.dt_limit[1]):
        raise ValueError(f"dt_limit is {config.dt_limit}: hf-nemotron-h has no upper limit")
    return {
        "architectures": ["NemotronHForCausalLM"],
        "hybrid_override_pattern": config.layers,
        "num_hidden_layers": config.n_layers,
        "head_dim": config.attention_head_dim,
        "mamba_hidden_act": "silu",
        "mlp_hidden_act": activations.get(config.mlp_activation, "relu2"),
        "time_step_min": config.dt_limit[0] or _NEGLIGIBLE,
        "time_step_limit": list(config.dt_limit),
        "expand": max(1, config.d_inner // config.d_model),
        "attention_bias": False,
        "mamba_proj_bias": config.mamba_bias,
        "sliding_window": None,
        "tie_word_embeddings": False,
        **{theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()},
        **{theirs: getattr(config, ours) for theirs, ours in _OPTIONAL.items()},
        "mamba_num_heads": config.nheads,
        "intermediate_size": config.d_ff or 1,
    }


def _entries(model: HybridLM) -> list[Entry]:
    return [
        Entry("backbone.embeddings.weight", ("embedding.weight",)),
        *(entry for i, symbol in enumerate(model.config.layers) for entry in _layer(i, symbol)),
        Entry("backbone.norm_f.weight", ("norm.weight",)),
        layers.head("lm_head.weight", model.config.tie_embeddings, always=True),
    ]


def _layer(i: int, symbol: str) -> list[Entry]:
    theirs, ours = f"backbone.layers.{i}.mixer", f"layers.{i}.mixer"
    mixer = {
        "M": layers.mamba(theirs, ours),
        "*": layers.attention(theirs, ours),
        "-": layers.same_names(theirs, ours, "up_proj", "down_proj"),
    }
    return [Entry(f"backbone.layers.{i}.norm.weight", (f"layers.{i}.norm.weight",)), *mixer[symbol]]


def _rename(name: str) -> str:
    """transformers 5 calls it `model` in memory; both names are about."""
    return f"backbone.{name.removeprefix('model.')}" if name.startswith("model.") else name


FORMAT = huggingface_format("nemotron_h", _read, _write, _entries, _rename)
