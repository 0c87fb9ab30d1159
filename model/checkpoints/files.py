"""The files of a checkpoint directory: config.json beside tensors in safetensors, whole or in shards."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

CONFIG = "config.json"
TENSORS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: the file is missing or holds something else.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist: give the directory of a checkpoint") from error
    except NotADirectoryError as error:
        raise ValueError(f"{path.parent} is a file: give the directory of a checkpoint") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error.reason}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: expected a JSON object, found a {type(fields).__name__}")
    return fields


class TensorFiles:
    """The tensors of a checkpoint directory, read one at a time; pickled weights are never opened."""

    def __init__(self, directory: Path) -> None:
        single, index = directory / TENSORS, directory / INDEX
        if single.exists():
            paths: Iterable[Path] = [single]
        elif index.exists():
            names = read_json(index).get("weight_map")
            if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
                raise ValueError(
                    f"{index}: 'weight_map' is missing or no map to file names: the index is damaged, fetch it again"
                )
            # A shard is a file of this directory: a stranger's index may not point elsewhere.
            paths = [directory / Path(name).name for name in sorted(set(names.values()))]
        else:
            raise ValueError(f"{directory}: found neither {TENSORS} nor {INDEX}: convert it to safetensors")
        self.directory = directory
        self._file_of: dict[str, Path] = {}
        for path in paths:
            try:
                with safe_open(path, framework="pt") as file:
                    self._file_of.update(dict.fromkeys(file.keys(), path))
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{path}: cannot be read as safetensors: {error}") from error

    @property
    def names(self) -> set[str]:
        """Keys of all tensors."""
        return set(self._file_of)

    def path(self, key: str) -> Path:
        """The file that holds a tensor."""
        return self._file_of[key]

    def read(self, key: str) -> Tensor:
        """One tensor, on the CPU."""
        with safe_open(self._file_of[key], framework="pt") as file:
            return file.get_tensor(key)


def write_checkpoint(directory: Path, config: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write config.json and model.safetensors.

    Both are written under other names first. An older config.json goes before the tensors are replaced and
    the new one comes after, so that an interrupted write leaves nothing that loads as a checkpoint.
    """
    directory.mkdir(parents=True, exist_ok=True)
    new_config, new_tensors = directory / f"{CONFIG}.partial", directory / f"{TENSORS}.partial"
    save_file(tensors, new_tensors, metadata={"format": "pt"})
    new_config.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (directory / CONFIG).unlink(missing_ok=True)
    new_tensors.replace(directory / TENSORS)
    new_config.replace(directory / CONFIG)
