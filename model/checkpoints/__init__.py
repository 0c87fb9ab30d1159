"""Load and save models: the native format, and one file per foreign format."""

import os
from pathlib import Path

import torch

from model.checkpoints import hf_bamba, hf_granite, hf_mamba2, hf_nemotron_h, keymap, megatron, native, state_spaces
from model.checkpoints.files import CONFIG, Source, first_line, read_json
from model.checkpoints.format import Fields, Format
from model.checkpoints.function import check_expressed
from model.checkpoints.keymap import Entry
from model.config import HybridConfig
from model.hybrid import HybridLM

__all__ = ["FORMATS", "load_config", "load_pretrained", "save_pretrained"]

FORMATS: dict[str, Format] = {
    "native": native.FORMAT,
    "hf-mamba2": hf_mamba2.FORMAT,
    "hf-nemotron-h": hf_nemotron_h.FORMAT,
    "hf-bamba": hf_bamba.FORMAT,
    "hf-granite": hf_granite.FORMAT,
    "state-spaces": state_spaces.FORMAT,
    "megatron": megatron.FORMAT,
}
"""Formats by the name that `save_pretrained` knows them under."""


def load_pretrained(
    path: str | os.PathLike[str], *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> HybridLM:
    """Load a checkpoint directory of any known format, which its files tell.

    Beside the model, no more than one tensor is held in memory (of a pickled file: what of it is mapped).

    Args:
        path: the directory.
        dtype: of the weights; that of the file's embedding if None. A_log, D and dt_bias are never below fp32.
        device: where to put the model, the CPU if None.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: an unknown format, integers for a dtype, or files that do not fit; the message names file, key and
            shapes.
    """
    directory = Path(path)
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}: weights are floating-point numbers, such as torch.bfloat16")
    format, config = _read_config(directory)
    source = format.open(directory)
    model = _without_memory(directory, config)
    entries = list(format.entries(model))
    keymap.check(model, source, entries)  # before anything of the size that the configuration tells is allocated
    model.to(_stored_dtype(entries, source) if dtype is None else dtype).to_empty(device=device or "cpu")
    keymap.fill(model, source, entries)
    return model


def load_config(path: str | os.PathLike[str]) -> HybridConfig:
    """The configuration of a checkpoint directory of any known format.

    Raises:
        ValueError: as `load_pretrained`.
    """
    return _read_config(Path(path))[1]


def save_pretrained(model: HybridLM, path: str | os.PathLike[str], format: str = "native") -> None:
    """Write a checkpoint directory; an interrupted call leaves nothing that loads.

    Args:
        model: the model.
        path: the directory, made if need be; other files in it are left alone, an older checkpoint in it is replaced.
        format: a name in `FORMATS`.

    Raises:
        ValueError: an unknown format, or one that cannot express the model.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}: choose one of {', '.join(FORMATS)}")
    chosen = FORMATS[format]
    fields = chosen.write_config(model.config)
    check_expressed(model.config, chosen.reread(fields), format)
    chosen.write(Path(path), model, fields)


def _read_config(directory: Path) -> tuple[Format, HybridConfig]:
    format = _recognise(directory)
    try:
        return format, format.read_config(directory)
    except (TypeError, ValueError, KeyError, ZeroDivisionError, OverflowError) as error:
        message = str(error)
        place = _config_place(directory)
        raise ValueError(message if message.startswith(str(directory)) else f"{place}: {message}") from error


def _config_place(directory: Path) -> Path:
    """Where a configuration is told; Megatron's has no file of its own."""
    return directory / CONFIG if os.path.lexists(directory / CONFIG) else directory


def _without_memory(directory: Path, config: HybridConfig) -> HybridLM:
    try:
        with torch.device("meta"):
            return HybridLM(config)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # of sizes beyond those of any tensor
        place = _config_place(directory)
        raise ValueError(f"{place}: no model has these sizes, correct them: {first_line(error)}") from error


def _recognise(directory: Path) -> Format:
    fields: Fields | None = None
    if os.path.lexists(directory / CONFIG) or not os.path.isdir(directory):
        fields = read_json(directory / CONFIG)
    found = next((known for known in FORMATS.values() if known.recognises(directory, fields)), None)
    if found is None:
        told = "there is no config.json" if fields is None else f"model_type is {fields.get('model_type')!r}"
        raise ValueError(f"{directory / CONFIG}: {told}: known are {', '.join(FORMATS)}")
    return found


def _stored_dtype(entries: list[Entry], source: Source) -> torch.dtype:
    """That of the embedding."""
    key = next(entry.key for entry in entries if entry.parameters == ("embedding.weight",) and not entry.copy)
    stored = source.spec(key).dtype
    assert isinstance(stored, torch.dtype)  # checked with all others
    return stored
