"""What the formats of transformers share: config.json with a `model_type`, safetensors, and their manner of fields."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.checkpoints.files import CONFIG, Rename, TensorFiles, read_json
from model.checkpoints.format import Fields, Format
from model.checkpoints.keymap import Entry, plan
from model.checkpoints.writing import write_safetensors
from model.config import HybridConfig, RopeScaling
from model.hybrid import HybridLM

WITHOUT_EFFECT = {
    # Of training, caching, text and provenance only.
    "_attn_implementation",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "auto_map",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "hidden_dropout",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "logits_to_keep",
    "num_logits_to_keep",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "rescale_prenorm_residual",
    "return_dict",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "use_mamba_kernels",
}

LONGEST = "max_position_embeddings"
"""Read and written here for all formats, so `read_fields` does not get it."""

_ROPE = {
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_max_position_embeddings": "original_context",
        "low_freq_factor": "low",
        "high_freq_factor": "high",
    },
    "yarn": {
        "factor": "factor",
        "original_max_position_embeddings": "original_context",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "truncate": "truncate",
        "attention_factor": "attention_factor",
    },
}
"""By rope_type: their name of each field -> ours."""


def huggingface_format(
    model_type: str,
    read_fields: Callable[[Fields], HybridConfig],
    write_fields: Callable[[HybridConfig], Fields],
    entries: Callable[[HybridLM], Iterable[Entry]],
    rename: Rename = str,
) -> Format:
    """A format that its `model_type` tells. `max_position_embeddings` travels along where there is attention.

    Args:
        read_fields, write_fields: config.json without `model_type` <-> the configuration.
        rename: names in the files -> those of `entries`.
    """

    def read_config(directory: Path) -> HybridConfig:
        return reread(read_json(directory / CONFIG))

    def reread(fields: Fields) -> HybridConfig:
        apart = ("model_type", LONGEST)
        config = read_fields({name: value for name, value in fields.items() if name not in apart})
        longest = fields.get(LONGEST)
        stated = type(longest) is int and longest > 0  # it has no effect here: what is strange is no error
        return replace(config, max_position_embeddings=longest if stated else None)

    def write_config(config: HybridConfig) -> Fields:
        longest = config.max_position_embeddings if "*" in config.layers else None
        stated = {} if longest is None else {LONGEST: longest}
        return {"model_type": model_type, **stated, **write_fields(config)}

    def write(directory: Path, model: HybridLM, fields: Fields) -> None:
        write_safetensors(directory, fields, plan(model, entries(model)))

    return Format(
        recognises=lambda directory, fields: fields is not None and fields.get("model_type") == model_type,
        read_config=read_config,
        write_config=write_config,
        reread=reread,
        open=lambda directory: TensorFiles(directory, rename),
        entries=entries,
        write=write,
    )


def check_names(
    fields: Fields, required: Iterable[str], optional: Iterable[str], without_effect: Iterable[str]
) -> None:
    """Every field is known, and those that must be there are.

    Raises:
        ValueError: naming the fields.
    """
    unknown = sorted(fields.keys() - {*required, *optional, *without_effect, *WITHOUT_EFFECT})
    missing = sorted(set(required) - fields.keys())
    if unknown or missing:
        raise ValueError(f"the configuration has unknown fields {unknown} and misses {missing}")


def check_value(fields: Fields, name: str, *allowed: Any) -> None:
    """The field is absent or has one of the values.

    Raises:
        ValueError: it has another.
    """
    if name in fields and fields[name] not in allowed:
        shown = " or ".join(repr(value) for value in allowed)
        raise ValueError(f"{name} is {fields[name]!r}: only {shown} is supported")


def count(fields: Fields, name: str) -> int:
    """A field that is a number of things.

    Raises:
        ValueError: it is no whole number from 1 to a million.
    """
    value = fields[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10**6:
        raise ValueError(f"{name} is {value!r}: it must be a whole number from 1 to 1,000,000")
    return value


def limits(pair: Any) -> tuple[float, float]:
    """time_step_limit: transformers 5 writes an infinity as {"__float__": "Infinity"}; None is no limit.

    Raises:
        ValueError: it is no pair of numbers.
    """
    if pair is None:
        return 0.0, float("inf")
    try:
        lower, upper = (float(limit["__float__"] if isinstance(limit, dict) else limit) for limit in pair)
    except (TypeError, ValueError, KeyError):
        raise ValueError(f"time_step_limit is {pair!r}: it must be a pair of numbers") from None
    return lower, upper


def pattern_of_pairs(mixers: Iterable[str]) -> str:
    """Decoder layers of a mixer and an MLP each -> the pattern."""
    return "".join(f"{mixer}-" for mixer in mixers)


def mixers_of_pairs(config: HybridConfig) -> str:
    """The inverse.

    Raises:
        ValueError: the pattern is not made of pairs of a mixer and an MLP.
    """
    mixers, mlps = config.layers[::2], config.layers[1::2]
    if len(mixers) != len(mlps) or set(mlps) != {"-"} or "-" in mixers:
        raise ValueError(f"pattern {config.pattern!r} is not made of pairs M- and *-, which this format needs")
    return mixers


def layer_kinds(names: Any) -> str:
    """transformers' list of layer types, of any age, as a pattern.

    Raises:
        ValueError: an unknown type.
    """
    symbols = {
        "linear_attention": "M",
        "mamba": "M",
        "mamba2": "M",
        "full_attention": "*",
        "attention": "*",
        "mlp": "-",
    }
    if not isinstance(names, list) or not names:
        raise ValueError(f"the list of layer types is {names!r}: it must name the type of each layer")
    for name in names:
        if not isinstance(name, str) or name not in symbols:
            raise ValueError(f"layer type {name!r} is not supported: known are {', '.join(symbols)}")
    return "".join(symbols[name] for name in names)


def read_rope(fields: Fields, partial: float | None = None) -> dict[str, Any]:
    """rope_parameters, or rope_theta and rope_scaling of before transformers 5, as fields of our configuration.

    As transformers does: rope_scaling goes before rope_parameters, what these say before fields of their own.

    Args:
        partial: what the model type takes for `partial_rotary_factor`, whatever the field of that name says.

    Raises:
        ValueError: a scaling that is not supported.
    """
    given = dict(fields.get("rope_scaling") or fields.get("rope_parameters") or {})
    given = {name: value for name, value in given.items() if value is not None}  # null is as if it were not there
    theta = given.pop("rope_theta", fields.get("rope_theta", 10000.0))
    partial = fields.get("partial_rotary_factor", 1.0) if partial is None else partial
    partial = given.pop("partial_rotary_factor", partial)
    kind = given.pop("rope_type", given.pop("type", "default"))
    given.pop("type", None)
    scaling = None
    if kind != "default":
        if kind not in _ROPE:
            raise ValueError(f"rope_type {kind!r} is not supported: known are default, {', '.join(_ROPE)}")
        unknown = sorted(given.keys() - _ROPE[kind].keys())
        if unknown:
            raise ValueError(f"rope parameters {unknown} are not supported for {kind!r}")
        scaling = RopeScaling(kind=kind, **{_ROPE[kind][name]: value for name, value in given.items()})
    return {"rope_theta": float(theta), "partial_rotary_factor": partial, "rope_scaling": scaling}


def write_rope(config: HybridConfig) -> Mapping[str, Any]:
    """rope_parameters of a model with rotary embedding."""
    scaling = config.rope_scaling
    if scaling is None:
        found: dict[str, Any] = {"rope_type": "default"}
    else:
        found = {theirs: getattr(scaling, ours) for theirs, ours in _ROPE[scaling.kind].items()}
        found = {"rope_type": scaling.kind} | {name: value for name, value in found.items() if value is not None}
    return found | {"rope_theta": config.rope_theta, "partial_rotary_factor": config.partial_rotary_factor}
