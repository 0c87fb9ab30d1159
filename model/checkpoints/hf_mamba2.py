"""transformers' Mamba2ForCausalLM: in_proj rows are [z, x, B, C, dt], convolution channels [x, B, C]."""

import math
from typing import Any

from model.checkpoints.format import Format
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

_DERIVED = {
    "num_hidden_layers",
    "num_heads",
    "time_step_limit",
    "hidden_act",
    "rms_norm",
    "tie_word_embeddings",
}

_WITHOUT_EFFECT = {
    # What transformers' model does not read, or reads for training, caching and text only. It always gates
    # before the norm, whatever norm_before_gate says (Mamba-Codestral's file says true).
    "norm_before_gate",
    "time_step_rank",
    "rescale_prenorm_residual",
    "use_cache",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "_name_or_path",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "id2label",
    "label2id",
    "problem_type",
    "chunk_size_feed_forward",
    "is_encoder_decoder",
}

_IN_PROJ = ("z_proj", "x_proj", "B_proj", "C_proj", "dt_proj")
_CONVS = ("x_conv", "B_conv", "C_conv")


def _read_config(fields: dict[str, Any]) -> HybridConfig:
    known = _FIELDS.keys() | _DERIVED | _WITHOUT_EFFECT
    unknown = sorted(fields.keys() - known)
    missing = sorted((_FIELDS.keys() | {"num_hidden_layers", "num_heads"}) - fields.keys())
    if unknown or missing:
        raise ValueError(f"a Mamba2 configuration has unknown fields {unknown} and misses {missing}")
    if fields.get("hidden_act", "silu") not in ("silu", "swish"):
        raise ValueError(f"hidden_act is {fields['hidden_act']!r}: only 'silu' is supported")
    if not fields.get("rms_norm", True):
        raise ValueError("rms_norm is false: a mixer without its gated norm is not supported")
    config = HybridConfig(
        pattern="M" * fields["num_hidden_layers"],
        dt_limit=_limits(fields.get("time_step_limit", (0.0, math.inf))),
        tie_embeddings=fields.get("tie_word_embeddings", False),
        **{ours: fields[theirs] for theirs, ours in _FIELDS.items()},
    )
    if config.nheads != fields["num_heads"]:
        raise ValueError(f"num_heads is {fields['num_heads']}, but expand * hidden_size / head_dim is {config.nheads}")
    return config


def _limits(pair: Any) -> tuple[float, float]:
    """transformers 5 writes an infinity as {"__float__": "Infinity"}."""
    lower, upper = (float(limit["__float__"] if isinstance(limit, dict) else limit) for limit in pair)
    return lower, upper


def _write_config(config: HybridConfig) -> dict[str, Any]:
    if set(config.layers) != {"M"}:
        raise ValueError(f"pattern {config.pattern!r} has layers other than M, which hf-mamba2 cannot express")
    if config.norm_before_gate:
        raise ValueError("norm_before_gate is true, which hf-mamba2 cannot express: it gates before the norm")
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
        *(entry for i in range(model.config.n_layers) for entry in _layer_entries(i)),
        Entry("backbone.norm_f.weight", ("norm.weight",)),
        Entry("lm_head.weight", ("head.weight",)),
    ]


def _layer_entries(i: int) -> list[Entry]:
    theirs, ours = f"backbone.layers.{i}", f"layers.{i}"
    mixer, scan = f"{ours}.mixer", f"{ours}.mixer.scan"
    return [
        Entry(f"{theirs}.norm.weight", (f"{ours}.norm.weight",)),
        Entry(f"{theirs}.mixer.in_proj.weight", tuple(f"{mixer}.{name}.weight" for name in _IN_PROJ)),
        Entry(f"{theirs}.mixer.in_proj.bias", tuple(f"{mixer}.{name}.bias" for name in _IN_PROJ)),
        Entry(f"{theirs}.mixer.conv1d.weight", tuple(f"{mixer}.{name}.weight" for name in _CONVS), unit_dim=True),
        Entry(f"{theirs}.mixer.conv1d.bias", tuple(f"{mixer}.{name}.bias" for name in _CONVS)),
        Entry(f"{theirs}.mixer.A_log", (f"{scan}.A_log",)),
        Entry(f"{theirs}.mixer.D", (f"{scan}.D",)),
        Entry(f"{theirs}.mixer.dt_bias", (f"{scan}.dt_bias",)),
        Entry(f"{theirs}.mixer.norm.weight", (f"{mixer}.norm.weight",)),
        Entry(f"{theirs}.mixer.out_proj.weight", (f"{mixer}.out_proj.weight",)),
        Entry(f"{theirs}.mixer.out_proj.bias", (f"{mixer}.out_proj.bias",)),
    ]


FORMAT = Format(
    model_type="mamba2",
    read_config=_read_config,
    write_config=_write_config,
    entries=_entries,
    ignored=lambda config: frozenset({"lm_head.weight"}) if config.tie_embeddings else frozenset(),
)
