"""Megatron-LM's hybrid models of 2024: mp_rank_XX/model_optim_rng.pt, one for each tensor-parallel rank."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoints import layers
from model.checkpoints.files import load_pickle
from model.checkpoints.format import Fields, Format
from model.checkpoints.keymap import Entry, plan
from model.checkpoints.writing import all_tensors
from model.config import Activation, HybridConfig
from model.hybrid import HybridLM

TRACKER = "latest_checkpointed_iteration.txt"
RELEASE = "release"
FILE = "model_optim_rng.pt"
INERT_MODULES = ("megatron.", "transformer_engine.", "numpy.", "pathlib.")
"""Of settings that lie beside the tensors: in their place an object that does nothing is made."""

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

_KINDS = ("weight", "bias")


class MegatronFiles:
    """The tensors of all ranks, mapped from the disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._paths = _rank_files(directory)
        self._tensors = [_model(path) for path in self._paths]
        self.ranks = len(self._paths)
        for path, tensors in zip(self._paths, self._tensors, strict=True):
            if tensors.keys() != self._tensors[0].keys():
                others = sorted(tensors.keys() ^ self._tensors[0].keys())
                raise ValueError(f"{path}: it and rank 0 do not hold the same tensors: {others[:8]}")

    @property
    def names(self) -> set[str]:
        """Keys of all tensors."""
        return set(self._tensors[0])

    def path(self, key: str, rank: int = 0) -> Path:
        """The file that holds a rank's part of a tensor."""
        return self._paths[rank]

    def read(self, key: str, rank: int = 0) -> Tensor:
        """A rank's part of a tensor, a view of the file."""
        return self._tensors[rank][key]


class Inert:
    """In place of an object that is of no interest here, whatever it was to be made from."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _rank_files(directory: Path) -> list[Path]:
    tracker = directory / TRACKER
    folder = directory
    if tracker.is_file():
        told = tracker.read_text(encoding="utf-8").strip()
        if told != RELEASE and not told.isdecimal():
            raise ValueError(f"{tracker}: {told!r} is neither {RELEASE!r} nor a number")
        folder = directory / (told if told == RELEASE else f"iter_{int(told):07d}")
    elif (directory / RELEASE).is_dir():
        folder = directory / RELEASE
    found = sorted(folder.glob("mp_rank_*"))
    expected = [folder / f"mp_rank_{rank:02d}" for rank in range(len(found))]
    if not found:
        raise ValueError(f"{folder}: there is no mp_rank_00 in it")
    if found != expected:
        names = [path.name for path in found]
        raise ValueError(f"{folder}: {names} are not the ranks 00 to {len(found) - 1:02d} of tensor parallelism alone")
    return [path / FILE for path in found]


def _load(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise ValueError(f"{path}: cannot be read: {error}") from error
    inert = [(Inert, name) for name in unsafe if name.startswith(INERT_MODULES)]
    with torch.serialization.safe_globals([argparse.Namespace, *inert]):
        return load_pickle(path)


def _model(path: Path) -> dict[str, Tensor]:
    model = _load(path).get("model")
    if not isinstance(model, Mapping):
        raise ValueError(f"{path}: it has no 'model' with tensors")
    found = {}
    for name, value in model.items():
        if name.endswith("_extra_state"):
            continue
        if not isinstance(value, Tensor):
            raise ValueError(f"{path}: {name} is a {type(value).__name__}, expected a tensor")
        # Newer ones call the norm before a mixer by the layer that computes it.
        found[name.replace(".mixer.in_proj.layer_norm_weight", ".norm.weight")] = value
    return found


def _read_config(directory: Path) -> HybridConfig:
    path = _rank_files(directory)[0]
    arguments = _load(path).get("args")
    if not isinstance(arguments, argparse.Namespace):
        raise ValueError(f"{path}: it has no 'args', which tell the sizes that the tensors do not")
    try:
        return _read(vars(arguments))
    except ValueError as error:
        raise ValueError(f"{path}: args: {error}") from error


def _read(args: Fields) -> HybridConfig:
    missing = sorted(_FIELDS.keys() - {name for name, value in args.items() if value is not None})
    if missing:
        raise ValueError(f"{missing} are missing")
    for name, needed in (("normalization", "RMSNorm"), ("pipeline_model_parallel_size", 1), ("num_experts", None)):
        if args.get(name, needed) != needed:
            raise ValueError(f"{name} is {args[name]!r}: only {needed!r} is supported")
    if args.get("openai_gelu"):
        raise ValueError("openai_gelu is on: only the exact GELU is supported")
    eps = args.get("norm_epsilon", args.get("layernorm_epsilon"))
    if eps is None or not isinstance(args.get("padded_vocab_size"), int):
        raise ValueError("norm_epsilon or padded_vocab_size is missing")
    position = args.get("position_embedding_type", "none")
    if position not in ("none", "rope"):
        raise ValueError(f"position_embedding_type is {position!r}: only 'none' and 'rope' are supported")
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


def _activation(args: Fields) -> Activation:
    if args.get("swiglu"):
        return "silu-gated"
    return "relu2" if args.get("squared_relu") else "gelu"


def _write_config(config: HybridConfig) -> Fields:
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


def _entries(model: HybridLM) -> list[Entry]:
    config = model.config
    return [
        Entry("embedding.word_embeddings.weight", ("embedding.weight",)),
        *(entry for i, symbol in enumerate(config.layers) for entry in _layer(i, symbol, config)),
        Entry("decoder.final_norm.weight", ("norm.weight",), split=None),
        Entry("output_layer.weight", ("head.weight",)),
    ]


def _layer(i: int, symbol: str, config: HybridConfig) -> list[Entry]:
    theirs, ours = f"decoder.layers.{i}", f"layers.{i}"
    norm = (f"{ours}.norm.weight",)
    if symbol == "M":
        norm_entry = Entry(f"{theirs}.norm.weight", norm, split=None)
        return [norm_entry, *layers.mamba(f"{theirs}.mixer", f"{ours}.mixer")]
    if symbol == "*":
        attention = f"{theirs}.self_attention"
        qkv = [tuple(f"{ours}.mixer.{name}.{kind}" for name in ("q_proj", "k_proj", "v_proj")) for kind in _KINDS]
        return [
            Entry(f"{attention}.linear_qkv.layer_norm_weight", norm, split=None),
            Entry(f"{attention}.linear_qkv.weight", qkv[0], interleave=config.n_kv_heads),
            Entry(f"{attention}.linear_qkv.bias", qkv[1], interleave=config.n_kv_heads),
            *_row_parallel(f"{attention}.linear_proj", f"{ours}.mixer.o_proj"),
        ]
    into = ("gate_proj", "up_proj") if config.mlp_activation == "silu-gated" else ("up_proj",)
    fc1 = [tuple(f"{ours}.mixer.{name}.{kind}" for name in into) for kind in _KINDS]
    return [
        Entry(f"{theirs}.mlp.linear_fc1.layer_norm_weight", norm, split=None),
        *(Entry(f"{theirs}.mlp.linear_fc1.{kind}", names) for kind, names in zip(_KINDS, fc1, strict=True)),
        *_row_parallel(f"{theirs}.mlp.linear_fc2", f"{ours}.mixer.down_proj"),
    ]


def _row_parallel(theirs: str, ours: str) -> list[Entry]:
    return [
        Entry(f"{theirs}.weight", (f"{ours}.weight",), split=1),
        Entry(f"{theirs}.bias", (f"{ours}.bias",), split=None),
    ]


def _write(directory: Path, model: HybridLM, fields: Fields) -> None:
    folder = directory / RELEASE / "mp_rank_00"
    folder.mkdir(parents=True, exist_ok=True)
    (directory / TRACKER).unlink(missing_ok=True)  # without it, and without the file below, nothing here loads
    (folder / FILE).unlink(missing_ok=True)
    content = {
        "model": all_tensors(plan(model, _entries(model))),
        "args": argparse.Namespace(**fields),
        "checkpoint_version": 3.0,
        "iteration": 0,
    }
    torch.save(content, folder / f"{FILE}.partial")
    (folder / f"{FILE}.partial").replace(folder / FILE)
    (directory / f"{TRACKER}.partial").write_text(f"{RELEASE}\n", encoding="utf-8")
    (directory / f"{TRACKER}.partial").replace(directory / TRACKER)


FORMAT = Format(
    recognises=lambda directory, fields: fields is None and _has_ranks(directory),
    read_config=_read_config,
    write_config=_write_config,
    reread=_read,
    open=MegatronFiles,
    entries=_entries,
    write=_write,
)


def _has_ranks(directory: Path) -> bool:
    return any(directory.glob("mp_rank_*")) or (directory / TRACKER).is_file() or (directory / RELEASE).is_dir()
