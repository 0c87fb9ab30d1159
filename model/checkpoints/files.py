"""The files of a checkpoint directory: JSON, tensors in safetensors, tensors in pickles that are never executed."""

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

CONFIG = "config.json"
TENSORS = "model.safetensors"
INDEX = "model.safetensors.index.json"
LONGEST_NAME = 200
"""Of a file that an index names: systems take 255 bytes."""
PICKLED = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
TRACKER = "latest_checkpointed_iteration.txt"
RELEASE = "release"
"""Of Megatron: which folder holds the ranks; its name where that is no iteration."""

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""By their names in safetensors; the others are no weights."""

Rename = Callable[[str], str]


class Spec(NamedTuple):
    """What a tensor is, without its values; a dtype that no weight has may be a name only."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str


class Source(Protocol):
    """The tensors of a checkpoint, read one at a time."""

    directory: Path
    ranks: int
    """How many tensor-parallel ranks it was written by: each has a part of the tensors that are split."""
    hint: str
    """What an error about a shape should say besides."""

    @property
    def names(self) -> set[str]:
        """Keys of all tensors."""

    def path(self, key: str, rank: int = 0) -> Path:
        """The file that holds a tensor."""

    def spec(self, key: str, rank: int = 0) -> Spec:
        """Shape and dtype of a tensor."""

    def read(self, key: str, rank: int = 0) -> Tensor:
        """One tensor, on the CPU; it may be a view of the file."""


def check_regular(path: Path) -> None:
    """A path that is there is a regular file: opening a FIFO would wait for its writer.

    Raises:
        ValueError: it is a directory, a FIFO or a device.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path} is no regular file: put the checkpoint's own file in its place")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: the file is missing or holds something else.
    """
    check_regular(path)
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
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deep to be a configuration") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {first_line(error)}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: expected a JSON object, found a {type(fields).__name__}")
    return fields


class _Files:
    """Where each tensor of a directory is: its file, and its name there."""

    ranks = 1
    hint = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._place: dict[str, tuple[Path, str]] = {}
        self._specs: dict[str, Spec] = {}

    @property
    def names(self) -> set[str]:
        """Keys of all tensors."""
        return set(self._place)

    def path(self, key: str, rank: int = 0) -> Path:
        """The file that holds a tensor."""
        return self._place[key][0]

    def spec(self, key: str, rank: int = 0) -> Spec:
        """Shape and dtype of a tensor."""
        return self._specs[key]

    def _note(self, path: Path, name: str, key: str, spec: Spec) -> None:
        if key in self._place:
            raise ValueError(f"{path}: {name} is in {self._place[key][0].name} as well")
        self._place[key] = (path, name)
        self._specs[key] = spec


class TensorFiles(_Files):
    """Tensors in model.safetensors, or in the shards that its index names."""

    def __init__(self, directory: Path, rename: Rename = str) -> None:
        """`rename` turns the names of the files into those of the format."""
        super().__init__(directory)
        for path in _shards(directory, TENSORS, INDEX):
            check_regular(path)
            try:
                with safe_open(path, framework="pt") as file:
                    for name in sorted(file.keys()):
                        stored = file.get_slice(name)  # nothing of it is read yet
                        dtype = stored.get_dtype()
                        spec = Spec(tuple(stored.get_shape()), _DTYPES.get(dtype, dtype))
                        self._note(path, name, rename(name), spec)
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{path}: cannot be read as safetensors: {error}") from error

    def read(self, key: str, rank: int = 0) -> Tensor:
        """One tensor; the file is opened anew, so that no more than this tensor stays in memory."""
        path, name = self._place[key]
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)


class PickledFiles(_Files):
    """Tensors in pytorch_model.bin, or in the shards that its index names; one file is mapped at a time."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._open: tuple[Path, Mapping[str, Tensor]] | None = None
        for path in _shards(directory, PICKLED, PICKLED_INDEX):
            for name, tensor in self._tensors(path).items():
                self._note(path, name, name, spec_of(tensor))

    def read(self, key: str, rank: int = 0) -> Tensor:
        """One tensor, a view of the mapped file."""
        path, name = self._place[key]
        return self._tensors(path)[name]

    def _tensors(self, path: Path) -> Mapping[str, Tensor]:
        if self._open is None or self._open[0] != path:
            self._open = None  # the one before goes first
            self._open = (path, plain_tensors(path, load_pickle(path)))
        return self._open[1]


def load_pickle(path: Path) -> dict[Any, Any]:
    """The dictionary in a file of `torch.save`, its tensors mapped from the disk; no code in it is ever run.

    Raises:
        ValueError: the file is damaged, holds something else, or wants to run code.
    """
    check_regular(path)
    try:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            found = torch.load(path, map_location="cpu", weights_only=True)  # the format before torch 1.6
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: holds more than tensors and plain values, and is not opened: {first_line(error)}"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a dictionary of tensors, found a {type(found).__name__}")
    return found


def plain_tensors(path: Path, found: Mapping[Any, Any]) -> dict[str, Tensor]:
    """A state dict whose values lie in its file as they are.

    Raises:
        ValueError: a key that is no string, or a value that is no such tensor: sparse, quantised, on no CPU, or with
            fewer values behind it than its shape says.
    """
    keys = [key for key in found if not isinstance(key, str)]
    if keys:
        raise ValueError(f"{path}: {keys[:8]!s} among its keys are no strings: this is not a plain state dict")
    others = sorted(key for key, value in found.items() if not isinstance(value, Tensor))
    if others:
        raise ValueError(f"{path}: {others[:8]} are no tensors: this is not a plain state dict")
    for key, tensor in found.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            kind = f"a {tensor.layout} tensor of {tensor.dtype} on {tensor.device.type}"
            raise ValueError(f"{path}: {key} is {kind}: only plain tensors are taken, save it as one")
        if tensor.nbytes > tensor.untyped_storage().nbytes():  # strides of 0 make any size of nothing
            raise ValueError(f"{path}: {key} has overlapping values: save it with .contiguous()")
    return dict(found)


def spec_of(tensor: Tensor) -> Spec:
    """Shape and dtype."""
    return Spec(tuple(tensor.shape), tensor.dtype)


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _shards(directory: Path, single: str, index: str) -> list[Path]:
    """The files that hold a checkpoint's tensors.

    Raises:
        ValueError: there are none, or the index names files that are missing or lie elsewhere.
    """
    if (directory / single).exists():
        return [directory / single]
    if not (directory / index).exists():
        hint = f", but {PICKLED}: convert it to safetensors" if (directory / PICKLED).exists() else ""
        raise ValueError(f"{directory}: found neither {single} nor {index}{hint}")
    names = read_json(directory / index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(
            f"{directory / index}: 'weight_map' is missing or no map to file names: it is damaged, fetch it again"
        )
    for name in sorted(set(names.values())):
        plain = name == os.path.basename(name) and name not in ("", ".", "..") and len(name) <= LONGEST_NAME
        if not plain:  # a stranger's index may not point elsewhere
            raise ValueError(f"{directory / index}: {name!r} is no name of a file in this directory: it is refused")
        if not (directory / name).is_file():
            raise ValueError(f"{directory / index}: {name} is missing: fetch it too")
    return [directory / name for name in sorted(set(names.values()))]
