"""Megatron-LM's hybrid models of 2024: mp_rank_XX/model_optim_rng.pt, one for each tensor-parallel rank."""

import argparse
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoints import layers, megatron_args
from model.checkpoints.deferred import deferred
from model.checkpoints.files import RELEASE, TRACKER, Spec, check_regular, load_pickle, plain_tensors, spec_of
from model.checkpoints.format import Fields, Format
from model.checkpoints.keymap import Entry, plan
from model.checkpoints.writing import replaced
from model.config import HybridConfig
from model.hybrid import HybridLM

FILE = "model_optim_rng.pt"
INERT_MODULES = ("megatron.", "transformer_engine.", "numpy.", "pathlib.")
"""Of settings that lie beside the tensors: in their place an object that does nothing is made."""

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
        self.hint = megatron_args.assumed(_arguments(self._paths[0], _load(self._paths[0])))
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
    paths = _rank_files(directory)
    path = paths[0]
    content = _load(path)
    args, tensors = _arguments(path, content), _model(path, content)
    ranks = args.get("tensor_model_parallel_size")
    if ranks is not None and not (isinstance(ranks, int) and ranks == len(paths)):
        raise ValueError(
            f"{path.parents[1]}: {len(paths)} of {ranks!r} ranks are here: there must be one mp_rank folder for each "
            f"(tensor_model_parallel_size in args)"
        )
    try:
        return megatron_args.read({**args, "hybrid_override_pattern": _checked_pattern(args, tensors)})
    except ValueError as error:
        raise ValueError(f"{path}: args: {error}{megatron_args.assumed(args)}") from error


def _checked_pattern(args: Fields, names: Iterable[str]) -> Any:
    """That of args, or else of the names; where both tell it they agree, and with the number of layers."""
    told, seen = args.get("hybrid_override_pattern"), _pattern(names)
    if isinstance(told, str) and told.replace("|", "") != seen:
        raise ValueError(f"hybrid_override_pattern is {told!r}, but the tensors' names say {seen!r}: correct it")
    layers = args.get("num_layers")
    if told is None and layers is not None and layers != len(seen):
        raise ValueError(f"num_layers is {layers!r}, but the tensors' names say {len(seen)}: {seen!r}")
    return seen if told is None else told


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
        "model": deferred(plan(model, _entries(model))),
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
    write_config=megatron_args.write,
    reread=megatron_args.read,
    open=MegatronFiles,
    entries=_entries,
    write=_write,
)


def _has_ranks(directory: Path) -> bool:
    return any(directory.glob("mp_rank_*")) or (directory / TRACKER).is_file() or (directory / RELEASE).is_dir()
