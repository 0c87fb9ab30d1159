"""The settings (`args`) of Megatron-LM's checkpoints <-> our configuration."""

from collections.abc import Mapping
from typing import Any

from model.checkpoints.format import Fields
from model.config import Activation, HybridConfig

_FIELDS = {
    "hidden_size": "d_model",
    "mamba_state_dim": "d_state",
    "mamba_head_dim": "headdim",
    "mamba_num_groups": "n_groups",
    "num_attention_heads": "n_heads",
    "ffn_hidden_size": "d_ff",
    "hybrid_override_pattern": "pattern",
}
"""Arguments that carry over as they are; every one must be there."""

_HARD_WIRED = {"mamba_state_dim": 128, "mamba_head_dim": 64, "mamba_num_groups": 8}
"""In the code of 2024, whose arguments do not have them; nor, mostly, the pattern, which the tensors' names tell."""

_TAKEN: Mapping[str, tuple[Any, ...]] = {
    "pipeline_model_parallel_size": (1,),
    # norms and residual stream
    "normalization": ("RMSNorm",),
    "apply_layernorm_1p": (False,),
    "layernorm_zero_centered_gamma": (False,),
    "apply_residual_connection_post_layernorm": (False,),
    "qk_layernorm": (False,),
    "qk_l2_norm": (False,),
    # positions
    "position_embedding_type": ("none", "rope"),
    "rope_type": ("rope",),
    "rotary_interleaved": (False,),
    "rotary_seq_len_interpolation_factor": (1,),
    "use_rope_scaling": (False,),
    "rotary_base_per_layer": (),
    "no_rope_freq": (),
    # attention
    "softmax_scale": (),
    "softmax_type": ("vanilla",),
    "window_size": (),
    "multi_latent_attention": (False,),
    "attention_output_gate": (False,),
    "head_wise_attn_gate": (False,),
    "experimental_attention_variant": (),
    "linear_attention_type": (),
    # MLP
    "openai_gelu": (False,),
    "quick_geglu": (False,),
    "activation_func_clamp_value": (),
    "glu_linear_offset": (0,),
    "num_experts": (),
    "num_moe_experts": (),
    # whole model
    "use_mup": (False,),
    "heterogeneous_layers_config_path": (),
}
"""Arguments that change the function that is computed -> the values that leave it ours; so do None and no argument.

Of Megatron's training/arguments.py and core/transformer/transformer_config.py, 2024 to 2026. What is not here either
changes nothing but the training, or shows in the names and shapes of the tensors.
"""


def assumed(args: Fields) -> str:
    """What an error should say where sizes had to be assumed."""
    sizes = [f"{name} = {value}" for name, value in _HARD_WIRED.items() if args.get(name) is None]
    if not sizes:
        return ""
    return f" ({', '.join(sizes)} are the defaults of Megatron's code of 2024, as args do not tell: add what is right)"


def read(args: Fields) -> HybridConfig:
    """The configuration that args tell.

    Raises:
        ValueError: something is missing, or changes the function in a way that the model cannot express.
    """
    args = {**args, **{name: value for name, value in _HARD_WIRED.items() if args.get(name) is None}}
    missing = sorted(_FIELDS.keys() - {name for name, value in args.items() if value is not None})
    if missing:
        raise ValueError(f"{missing} are missing")
    _check_taken(args)
    eps = args.get("norm_epsilon", args.get("layernorm_epsilon"))
    if eps is None or not isinstance(args.get("padded_vocab_size"), int):
        raise ValueError("norm_epsilon or padded_vocab_size is missing")
    position = args.get("position_embedding_type", "none")
    heads = args["num_attention_heads"]
    return HybridConfig(
        vocab_size=args["padded_vocab_size"],
        n_mamba_heads=args.get("mamba_num_heads"),
        n_kv_heads=args["num_query_groups"] if args.get("group_query_attention") else heads,
        head_dim=args.get("kv_channels") or args["hidden_size"] // heads,
        rope_theta=float(args.get("rotary_base", 10000)) if position == "rope" else None,
        partial_rotary_factor=args.get("rotary_percent", 1.0),
        attention_bias=bool(args.get("add_bias_linear", False)),
        mlp_bias=bool(args.get("add_bias_linear", False)),
        mlp_activation=_activation(args),
        norm_eps=eps,
        residual_in_fp32=bool(args.get("fp32_residual_connection", False)),
        tie_embeddings=not args.get("untie_embeddings_and_output_weights", False),
        chunk_size=128,
        **{ours: args[theirs] for theirs, ours in _FIELDS.items()},
    )


def _check_taken(args: Fields) -> None:
    for name, taken in _TAKEN.items():
        value = args.get(name)
        if value is not None and not (isinstance(value, str | int | float) and value in taken):
            shown = " or ".join(map(repr, taken or (None,)))
            raise ValueError(f"{name} is {value!r}: only {shown} is supported")
    if args.get("add_qkv_bias") and not args.get("add_bias_linear"):
        raise ValueError("add_qkv_bias is on without add_bias_linear: only biases of all layers or none are supported")


def _activation(args: Fields) -> Activation:
    if args.get("swiglu"):
        return "silu-gated"
    return "relu2" if args.get("squared_relu") else "gelu"


def write(config: HybridConfig) -> Fields:
    """The args of a configuration.

    Raises:
        ValueError: they cannot express it.
    """
    if config.attention_bias != config.mlp_bias and {"*", "-"} <= set(config.layers):
        raise ValueError("attention_bias and mlp_bias differ, which megatron cannot express: it has one for both")
    bias = config.attention_bias if "*" in config.layers else config.mlp_bias
    return {
        "num_layers": config.n_layers,
        "padded_vocab_size": config.vocab_size,
        "mamba_num_heads": config.nheads,
        "num_query_groups": config.n_kv_heads,
        "group_query_attention": config.n_kv_heads != config.n_heads,
        "kv_channels": config.attention_head_dim,
        "position_embedding_type": "none" if config.rope_theta is None else "rope",
        "rotary_base": config.rope_theta or 10000.0,
        "rotary_percent": config.partial_rotary_factor,
        "add_bias_linear": bias,
        "squared_relu": config.mlp_activation == "relu2",
        "swiglu": config.mlp_activation == "silu-gated",
        "normalization": "RMSNorm",
        "norm_epsilon": config.norm_eps,
        "fp32_residual_connection": config.residual_in_fp32,
        "untie_embeddings_and_output_weights": not config.tie_embeddings,
        "tensor_model_parallel_size": 1,
        "pipeline_model_parallel_size": 1,
        **{theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()},
        "hybrid_override_pattern": config.layers,
    }
