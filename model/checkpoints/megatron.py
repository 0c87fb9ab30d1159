"""Megatron-LM's hybrid models of 2024: mp_rank_XX/model_optim_rng.pt, one for each tensor-parallel rank."""

import argparse
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoints import layers
from model.checkpoints.files import RELEASE, TRACKER, Spec, check_regular, load_pickle, plain_tensors, spec_of
from model.checkpoints.format import Fields, Format
from model.checkpoints.keymap import Entry, plan
from model.checkpoints.writing import all_tensors, replaced
from model.config import Activation, HybridConfig
from model.hybrid import HybridLM

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

_HARD_WIRED = {"mamba_state_dim": 128, "mamba_head_dim": 64, "mamba_num_groups": 8}
"""In the code of 2024, whose arguments do not have them; nor, mostly, the pattern, which the tensors' names tell."""

_LAYER = re.compile(r"decoder\.layers\.(\d{1,6})\.(mixer|self_attention|mlp)\.")
_SYMBOLS = {"mixer": "M", "self_attention": "*", "mlp": "-"}

_KINDS = ("weight", "bias")


class MegatronFiles:
    """The tensors of all ranks; one rank's file is mapped at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._paths = _rank_files(directory)
        self._open: tuple[int, dict[str, Tensor]] | None = None
        self.ranks = len(self._paths)
        self.hint = _assumed(_arguments(self._paths[0], _load(self._paths[0])))
        self._specs = [
            {key: spec_of(tensor) for key, tensor in self._tensors(rank).items()} for rank in range(self.ranks)
        ]
        for path, specs in zip(self._paths, self._specs, strict=True):
            if specs.keys() != self._specs[0].keys():
                others = sorted(specs.keys() ^ self._specs[0].keys())
                raise ValueError(f"{path}: it and rank 0 do not hold the same tensors: {others[:8]}")

    @property
    def names(self) -> set[str]:
        """Keys of all tensors."""
        return set(self._specs[0])

    def path(self, key: str, rank: int = 0) -> Path:
        """The file that holds a rank's part of a tensor."""
        return self._paths[rank]

    def spec(self, key: str, rank: int = 0) -> Spec:
        """Shape and dtype of a rank's part of a tensor."""
        return self._specs[rank][key]

    def read(self, key: str, rank: int = 0) -> Tensor:
        """A rank's part of a tensor, a view of the file."""
        return self._tensors(rank)[key]

    def _tensors(self, rank: int) -> dict[str, Tensor]:
        if self._open is None or self._open[0] != rank:
            self._open = None  # the one before goes first
            path = self._paths[rank]
            self._open = (rank, _model(path, _load(path)))
        return self._open[1]


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
    check_regular(path)
    if not path.exists():
        raise ValueError(f"{path} is missing")
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise ValueError(f"{path}: cannot be read: {error}") from error
    inert = [(Inert, name) for name in unsafe if name.startswith(INERT_MODULES)]
    with torch.serialization.safe_globals([argparse.Namespace, *inert]):
        return load_pickle(path)


def _model(path: Path, content: Fields) -> dict[str, Tensor]:
    model = content.get("model")
    if not isinstance(model, Mapping):
        raise ValueError(f"{path}: it has no 'model' with tensors")
    tensors = {name: value for name, value in model.items() if not str(name).endswith("_extra_state")}
    # Newer ones call the norm before a mixer by the layer that computes it.
    return {
        name.replace(".mixer.in_proj.layer_norm_weight", ".norm.weight"): tensor
        for name, tensor in plain_tensors(path, tensors).items()
    }


def _arguments(path: Path, content: Fields) -> Fields:
    arguments = content.get("args")
    if not isinstance(arguments, argparse.Namespace):
        raise ValueError(f"{path}: it has no 'args', which tell the sizes that the tensors do not")
    return vars(arguments)


def _assumed(args: Fields) -> str:
    """What an error should say where sizes had to be assumed."""
    assumed = [f"{name} = {value}" for name, value in _HARD_WIRED.items() if args.get(name) is None]
    if not assumed:
        return ""
    return (
        f" ({', '.join(assumed)} are the defaults of Megatron's code of 2024, as args do not tell: add what is right)"
    )


def _pattern(names: Iterable[str]) -> str:
    """The pattern that the tensors' names tell."""
    found: dict[int, set[str]] = {}
    for match in filter(None, map(_LAYER.match, names)):
        found.setdefault(int(match[1]), set()).add(_SYMBOLS[match[2]])
    for i in range(max(found, default=-1) + 1):
        if len(found.get(i, ())) != 1:
            kinds = sorted(found.get(i, ()))
            raise ValueError(f"layer {i} has tensors of the kinds {kinds}: it must have those of one, M, * or -")
    return "".join(symbol for i in sorted(found) for symbol in found[i])


def _read_config(directory: Path) -> HybridConfig:
    path = _rank_files(directory)[0]
    content = _load(path)
    args, tensors = _arguments(path, content), _model(path, content)
    try:
        return _read({**args, "hybrid_override_pattern": _checked_pattern(args, tensors)})
    except ValueError as error:
        raise ValueError(f"{path}: args: {error}{_assumed(args)}") from error


def _checked_pattern(args: Fields, names: Iterable[str]) -> Any:
    """That of args, or else of the names; where both tell it they agree, and with the number of layers."""
    told, seen = args.get("hybrid_override_pattern"), _pattern(names)
    if isinstance(told, str) and told.replace("|", "") != seen:
        raise ValueError(f"hybrid_override_pattern is {told!r}, but the tensors' names say {seen!r}: correct it")
    layers = args.get("num_layers")
    if told is None and layers is not None and layers != len(seen):
        raise ValueError(f"num_layers is {layers!r}, but the tensors' names say {len(seen)}: {seen!r}")
    return seen if told is None else told


def _read(args: Fields) -> HybridConfig:
    args = {**args, **{name: value for name, value in _HARD_WIRED.items() if args.get(name) is None}}
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
        layers.head("output_layer.weight", config.tie_embeddings),
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
    content = {
        "model": all_tensors(plan(model, _entries(model))),
        "args": argparse.Namespace(**fields),
        "checkpoint_version": 3.0,
        "iteration": 0,
    }
    with replaced(directory) as write:
        write(TRACKER, lambda path: path.write_text(f"{RELEASE}\n", encoding="utf-8"))
        write(f"{RELEASE}/mp_rank_00/{FILE}", partial(torch.save, content))


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
