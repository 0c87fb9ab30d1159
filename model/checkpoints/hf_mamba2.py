"""transformers' Mamba2ForCausalLM."""

import math

from model.checkpoints import layers
from model.checkpoints.format import Fields
from model.checkpoints.huggingface import check_names, check_value, count, huggingface_format, limits
from model.checkpoints.keymap import Entry
from model.config import HybridConfig
from model.hybrid import HybridLM

_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "state_size": "d_state",
    "head_dim": "headdim",
    "expand": "expand",
    "n_groups": "n_groups",
    "conv_kernel": "d_conv",
    "use_conv_bias": "conv_bias",
    "use_bias": "mamba_bias",
    "chunk_size": "chunk_size",
    "time_step_min": "dt_min",
    "time_step_max": "dt_max",
    "time_step_floor": "dt_init_floor",
    "layer_norm_epsilon": "norm_eps",
    "residual_in_fp32": "residual_in_fp32",
    "initializer_range": "initializer_range",
}
"""Fields that carry over as they are; every one must be there."""

_OPTIONAL = ("time_step_limit", "hidden_act", "rms_norm", "tie_word_embeddings", "intermediate_size")

_WITHOUT_EFFECT = (
    # transformers always gates before the norm, whatever norm_before_gate says (Mamba-Codestral's file says true).
    "norm_before_gate",
    "time_step_rank",
    # of initialisation
    "time_step_init_scheme",
    "time_step_scale",
)


def _read(fields: Fields) -> HybridConfig:
    check_names(fields, [*_FIELDS, "num_hidden_layers", "num_heads"], _OPTIONAL, _WITHOUT_EFFECT)
    check_value(fields, "hidden_act", "silu", "swish")
    if not fields.get("rms_norm", True):
        raise ValueError("rms_norm is false: a mixer without its gated norm is not supported")
    config = HybridConfig(
        pattern="M" * count(fields, "num_hidden_layers"),
        dt_limit=limits(fields.get("time_step_limit", (0.0, math.inf))),
        tie_embeddings=fields.get("tie_word_embeddings", False),
        **{ours: fields[theirs] for theirs, ours in _FIELDS.items()},
    )
    if config.nheads != fields["num_heads"]:
        raise ValueError(f"num_heads is {fields['num_heads']}, but expand * hidden_size / head_dim is {config.nheads}")
    if fields.get("intermediate_size", config.d_inner) != config.d_inner:
        raise ValueError(
            f"intermediate_size is {fields['intermediate_size']!r}, but expand * hidden_size is {config.d_inner}"
        )
    return config


def _write(config: HybridConfig) -> Fields:
    if set(config.layers) != {"M"}:
        raise ValueError(f"pattern {config.pattern!r} has layers other than M, which hf-mamba2 cannot express")
    if config.norm_before_gate:
        raise ValueError("norm_before_gate is true, which hf-mamba2 cannot express: it gates before the norm")
    if config.d_inner != config.expand * config.d_model:
        raise ValueError(f"{config.nheads} heads of {config.headdim} are not expand * d_model, as hf-mamba2 needs")
    return {
        "architectures": ["Mamba2ForCausalLM"],
        "num_hidden_layers": config.n_layers,
        "num_heads": config.nheads,
        "time_step_limit": list(config.dt_limit),
        "hidden_act": "silu",
        "tie_word_embeddings": config.tie_embeddings,
        **{theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()},
    }


def _entries(model: HybridLM) -> list[Entry]:
    return [
        Entry("backbone.embeddings.weight", ("embedding.weight",)),
        *(entry for i in range(model.config.n_layers) for entry in _layer(i)),
        Entry("backbone.norm_f.weight", ("norm.weight",)),
        layers.head("lm_head.weight", model.config.tie_embeddings),
    ]


def _layer(i: int) -> list[Entry]:
    theirs, ours = f"backbone.layers.{i}", f"layers.{i}"
    return [
        Entry(f"{theirs}.norm.weight", (f"{ours}.norm.weight",)),
        *layers.mamba(f"{theirs}.mixer", f"{ours}.mixer"),
    ]


def _rename(name: str) -> str:
    """Mamba-Codestral's files put `model.` before every name."""
    return name.removeprefix("model.")


FORMAT = huggingface_format("mamba2", _read, _write, _entries, _rename)
