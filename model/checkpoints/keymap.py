"""Move tensors between a model and a file by a declarative key map."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.checkpoints.files import TensorFiles
from model.hybrid import HybridLM


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    Attributes:
        key: its name there.
        parameters: the model's parameters that it stacks along the first dimension, in order.
        unit_dim: the file has a dimension of size 1 after the first.
    """

    key: str
    parameters: tuple[str, ...]
    unit_dim: bool = False


def entries_of(model: HybridLM, entries: Iterable[Entry]) -> list[Entry]:
    """The entries whose parameters this model has (no biases or head where it has none)."""
    names = {name for name, _ in model.named_parameters()}
    return [entry for entry in entries if names.issuperset(entry.parameters)]


@torch.no_grad()
def load(model: HybridLM, files: TensorFiles, entries: Iterable[Entry], ignored: frozenset[str]) -> None:
    """Fill every parameter of the model.

    Raises:
        ValueError: a tensor is missing, unknown, or has another shape; the message names file, key and shapes.
    """
    parameters, mapped = dict(model.named_parameters()), entries_of(model, entries)
    expected = {entry.key for entry in mapped}
    missing, unknown = sorted(expected - files.names), sorted(files.names - expected - ignored)
    if missing or unknown:
        raise ValueError(
            f"{files.directory}: the tensors do not match the configuration: "
            f"missing {missing[:8]}, unknown {unknown[:8]} ({len(missing)} and {len(unknown)} in all)"
        )
    for entry in mapped:
        targets = [parameters[name] for name in entry.parameters]
        shape = _file_shape(targets, entry.unit_dim)
        tensor = files.read(entry.key)
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{files.path(entry.key)}: {entry.key} has shape {tuple(tensor.shape)}, expected {shape}: "
                f"the configuration and the tensors differ"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"{files.path(entry.key)}: {entry.key} is {tensor.dtype}, expected floating point")
        rows = tensor.squeeze(1) if entry.unit_dim else tensor
        for target, part in zip(targets, rows.split([len(target) for target in targets]), strict=True):
            target.copy_(part)


def dump(model: HybridLM, entries: Iterable[Entry]) -> dict[str, Tensor]:
    """The file's tensors, on the CPU."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    tensors = {}
    for entry in entries_of(model, entries):
        tensor = torch.cat([parameters[name] for name in entry.parameters])
        tensors[entry.key] = (tensor.unsqueeze(1) if entry.unit_dim else tensor).cpu()
    return tensors


def _file_shape(targets: Sequence[Tensor], unit_dim: bool) -> tuple[int, ...]:
    rows = sum(len(target) for target in targets)
    return (rows, 1, *targets[0].shape[1:]) if unit_dim else (rows, *targets[0].shape[1:])
