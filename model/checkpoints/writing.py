"""Write a checkpoint directory so that an interrupted write leaves nothing that loads."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from model.checkpoints.files import CONFIG, INDEX, PICKLED, PICKLED_INDEX, TENSORS
from model.checkpoints.keymap import Planned

SHARD_BYTES = 5 * 10**9
"""Tensors of more than this are cut into several files; so much is held in memory beside the model, at most."""


def write_safetensors(
    directory: Path, config: Mapping[str, Any], tensors: Iterable[Planned], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write config.json and model.safetensors, or its shards and their index.

    All are written under other names first. An older config.json goes before the tensors are replaced and the new one
    comes after.
    """
    shards = _cut(tensors, shard_bytes)
    directory.mkdir(parents=True, exist_ok=True)
    names = [TENSORS] if len(shards) == 1 else [_name(i, len(shards)) for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        made = {planned.key: planned.make() for planned in shard}
        made |= {planned.key: made[planned.key].clone() for planned in shard if planned.copy}  # no memory has two names
        save_file(made, directory / f"{name}.partial", {"format": "pt"})
        del made  # before the next shard is made
    if len(shards) > 1:
        weight_map = {planned.key: name for name, shard in zip(names, shards, strict=True) for planned in shard}
        total = sum(planned.bytes for shard in shards for planned in shard)
        _write_json(directory / f"{INDEX}.partial", {"metadata": {"total_size": total}, "weight_map": weight_map})
        names.append(INDEX)
    finish(directory, config, names)


def finish(directory: Path, config: Mapping[str, Any], names: Iterable[str]) -> None:
    """Give the files that are written as `<name>.partial` their names, config.json last, and remove older tensors."""
    _write_json(directory / f"{CONFIG}.partial", config)
    (directory / CONFIG).unlink(missing_ok=True)
    for old in (TENSORS, INDEX, PICKLED, PICKLED_INDEX):
        (directory / old).unlink(missing_ok=True)
    for shard in directory.glob("model-*-of-*.safetensors"):
        shard.unlink()
    for name in names:
        (directory / f"{name}.partial").replace(directory / name)
    (directory / f"{CONFIG}.partial").replace(directory / CONFIG)


def _cut(tensors: Iterable[Planned], shard_bytes: int) -> list[list[Planned]]:
    """In order, as many into each shard as fit; at least one."""
    shards: list[list[Planned]] = [[]]
    size = 0
    for planned in tensors:
        if shards[-1] and size + planned.bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(planned)
        size += planned.bytes
    return shards


def _name(index: int, count: int) -> str:
    return f"model-{index + 1:05d}-of-{count:05d}.safetensors"


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def all_tensors(tensors: Iterable[Planned]) -> dict[str, Tensor]:
    """The tensors at once, for formats of a single file; those that are parameters as they stand are not copied."""
    return {planned.key: planned.make() for planned in tensors}
