"""Load and save models: the native format, and one file per foreign format."""

import os
from pathlib import Path

import torch

from model.checkpoints import hf_mamba2, keymap, native
from model.checkpoints.files import CONFIG, TensorFiles, read_json, write_checkpoint
from model.checkpoints.format import Format
from model.hybrid import HybridLM

__all__ = ["FORMATS", "load_pretrained", "save_pretrained"]

FORMATS: dict[str, Format] = {"native": native.FORMAT, "hf-mamba2": hf_mamba2.FORMAT}
"""Formats by the name that `save_pretrained` knows them under."""


def load_pretrained(
    path: str | os.PathLike[str], *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> HybridLM:
    """Load a checkpoint directory of any known format, told by `model_type` in its config.json.

    Args:
        path: directory with config.json and model.safetensors (or its shards and their index).
        dtype: of the weights; that of the file's embedding if None. A_log, D and dt_bias are never below fp32.
        device: where to put the model, the CPU if None.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: an unknown format, or files that do not fit; the message names file, key and shapes.
    """
    directory = Path(path)
    fields = read_json(directory / CONFIG)
    model_type = fields.pop("model_type", None)
    format = next((known for known in FORMATS.values() if known.model_type == model_type), None)
    if format is None:
        known_types = ", ".join(repr(known.model_type) for known in FORMATS.values())
        raise ValueError(f"{directory / CONFIG}: model_type is {model_type!r}: known are {known_types}")
    try:
        config = format.read_config(fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{directory / CONFIG}: {error}") from error
    files = TensorFiles(directory)
    with torch.device("meta"):
        model = HybridLM(config)
    entries = list(format.entries(model))
    if dtype is None:
        embedding = next(entry.key for entry in entries if entry.parameters == ("embedding.weight",))
        stored = files.read(embedding).dtype if embedding in files.names else torch.float32
        dtype = stored if stored.is_floating_point else torch.float32
    model.to(dtype).to_empty(device=device or "cpu")
    keymap.load(model, files, entries, format.ignored(config))
    return model


def save_pretrained(model: HybridLM, path: str | os.PathLike[str], format: str = "native") -> None:
    """Write a checkpoint directory; an interrupted call leaves nothing that loads.

    Args:
        model: the model.
        path: the directory, made if need be; other files in it are left alone.
        format: a name in `FORMATS`.

    Raises:
        ValueError: an unknown format, or one that cannot express the model.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}: choose one of {', '.join(FORMATS)}")
    chosen = FORMATS[format]
    config = {"model_type": chosen.model_type, **chosen.write_config(model.config)}
    write_checkpoint(Path(path), config, keymap.dump(model, chosen.entries(model)))
