"""Write a checkpoint directory so that an interrupted write leaves nothing that loads."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from model.checkpoints.files import CONFIG, INDEX, PICKLED, PICKLED_INDEX, RELEASE, TENSORS, TRACKER, first_line
from model.checkpoints.keymap import Planned

SHARD_BYTES = 5 * 10**9
"""Tensors of more than this are cut into several files; so much is held in memory beside the model, at most."""

Write = Callable[[str, Callable[[Path], Any]], None]
"""Of a name in the directory, and of what writes a file to the path it is given."""


@contextmanager
def replaced(directory: Path) -> Iterator[Write]:
    """Write a checkpoint in place of an older one of any format; the file that makes it one is written last.

    All files are written under other names. When the last is done, the older checkpoint goes and they get their own
    names, in order. What was begun is removed where something fails.

    Raises:
        OSError: a file cannot be written; it names the file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    begun: dict[str, Path] = {}

    def write(name: str, save: Callable[[Path], Any]) -> None:
        begun[name] = directory / f"{name.replace('/', '-')}.partial"
        try:
            save(begun[name])
        except OSError as error:
            if error.errno is None:
                raise OSError(f"{directory / name}: cannot be written: {error}") from error
            raise OSError(error.errno, error.strerror, str(directory / name)) from error
        except (RuntimeError, SafetensorError) as error:  # of torch.save and safetensors, on a full disk
            raise OSError(f"{directory / name}: cannot be written: {first_line(error)}") from error

    try:
        yield write
        _remove_older(directory)
        for name, written in begun.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            written.replace(directory / name)
    finally:
        for written in begun.values():
            written.unlink(missing_ok=True)


def _remove_older(directory: Path) -> None:
    """First what it is recognised by, so that nothing loads from here on; of Megatron's only what we write."""
    (directory / CONFIG).unlink(missing_ok=True)
    for rank in sorted((directory / RELEASE).glob("mp_rank_*")):
        shutil.rmtree(rank)
    (directory / TRACKER).unlink(missing_ok=True)
    for pattern in (TENSORS, INDEX, PICKLED, PICKLED_INDEX, "model-*-of-*.safetensors", "pytorch_model-*-of-*.bin"):
        for old in directory.glob(pattern):
            old.unlink()
    if (directory / RELEASE).is_dir() and not any((directory / RELEASE).iterdir()):
        (directory / RELEASE).rmdir()


def write_safetensors(
    directory: Path, config: Mapping[str, Any], tensors: Iterable[Planned], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write config.json and model.safetensors, or its shards and their index."""
    shards = _cut(tensors, shard_bytes)
    names = [TENSORS] if len(shards) == 1 else [_name(i, len(shards)) for i in range(len(shards))]
    with replaced(directory) as write:
        for name, shard in zip(names, shards, strict=True):
            made = {planned.key: planned.make() for planned in shard}
            # no memory has two names
            made |= {planned.key: made[planned.key].clone() for planned in shard if planned.copy}
            write(name, partial(save_file, made, metadata={"format": "pt"}))
            del made  # before the next shard is made
        if len(shards) > 1:
            weight_map = {planned.key: name for name, shard in zip(names, shards, strict=True) for planned in shard}
            total = sum(planned.bytes for shard in shards for planned in shard)
            write(INDEX, json_writer({"metadata": {"total_size": total}, "weight_map": weight_map}))
        write(CONFIG, json_writer(config))


def json_writer(content: Mapping[str, Any]) -> Callable[[Path], Any]:
    """What writes the JSON object to a path."""
    return lambda path: path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


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
