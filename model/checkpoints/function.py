"""What of a configuration decides the function that a model computes, so that no export changes it unseen."""

import math
from typing import Any

from model.config import HybridConfig


def function_of(config: HybridConfig) -> dict[str, Any]:
    """By name. Left out: hints of speed, initialisation and precision, and whether the head is stored twice."""
    found: dict[str, Any] = {
        "pattern": config.layers,
        **_fields(config, "vocab_size", "d_model", "norm_eps"),
        **_fields(config, "embedding_multiplier", "residual_multiplier", "logits_scaling"),
    }
    if "M" in config.layers:
        found |= {"nheads": config.nheads, "dt_limit": tuple(map(float, config.dt_limit))}
        found |= _fields(config, "headdim", "d_state", "n_groups", "d_conv", "conv_bias", "mamba_bias")
        found |= _fields(config, "norm_before_gate")
    if "*" in config.layers:
        scale = config.attention_multiplier
        found |= {"head_dim": config.attention_head_dim}
        found |= {"attention_multiplier": 1 / math.sqrt(config.attention_head_dim) if scale is None else scale}
        found |= _fields(config, "n_heads", "n_kv_heads", "attention_bias", "rope_theta")
        if config.rope_theta is not None:
            found |= {"rotary_dim": config.rotary_dim, "rope_scaling": config.rope_scaling}
    if "-" in config.layers:
        found |= _fields(config, "d_ff", "mlp_activation", "mlp_bias")
    return found


def _fields(config: HybridConfig, *names: str) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


def check_expressed(config: HybridConfig, again: HybridConfig, format: str) -> None:
    """Make sure that `again`, what the format's own file says, is the same function as `config`.

    Raises:
        ValueError: it is not; the message names what the format cannot express.
    """
    ours, theirs = function_of(config), function_of(again)
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name), theirs.get(name)
        close = isinstance(mine, float) and isinstance(other, float) and math.isclose(mine, other, rel_tol=1e-12)
        if mine != other and not close:
            raise ValueError(f"format {format} cannot express {name} = {mine!r} (it would be {other!r})")
