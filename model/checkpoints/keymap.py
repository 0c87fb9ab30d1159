"""Move tensors between a model and files by a declarative key map."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from model.checkpoints.files import Source
from model.hybrid import HybridLM

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    Attributes:
        key: its name there.
        parameters: the model's parameters that it stacks along the first dimension, in order.
        unit_dim: the file has a dimension of size 1 after the first.
        interleave: the parameters are cut into so many equal parts, and stacked part by part: all first parts, then
            all second ones.
        split: the dimension along which tensor-parallel ranks share each of the parameters; None if all have it whole.
        copy: the parameters are in another entry as well, and are not read from here.
    """

    key: str
    parameters: tuple[str, ...]
    unit_dim: bool = False
    interleave: int = 1
    split: int | None = 0
    copy: bool = False

    def file_shape(self, shapes: Sequence[Shape]) -> Shape:
        """The shape in the file of parameters of these shapes."""
        rows = sum(shape[0] for shape in shapes)
        return (rows, 1, *shapes[0][1:]) if self.unit_dim else (rows, *shapes[0][1:])

    def pack(self, parts: Sequence[Tensor]) -> Tensor:
        """The tensor of the file; a single parameter is not copied."""
        if len(parts) == 1:
            packed = parts[0]
        elif self.interleave == 1:
            packed = torch.cat(list(parts))
        else:
            packed = torch.cat([part.unflatten(0, (self.interleave, -1)) for part in parts], dim=1).flatten(0, 1)
        return packed.unsqueeze(1) if self.unit_dim else packed

    def unpack(self, tensor: Tensor, shapes: Sequence[Shape], interleave: int) -> list[Tensor]:
        """The inverse of `pack`, as views."""
        rows = tensor.squeeze(1) if self.unit_dim else tensor
        if interleave == 1:
            return list(rows.split([shape[0] for shape in shapes]))
        parts = rows.unflatten(0, (interleave, -1)).split([shape[0] // interleave for shape in shapes], dim=1)
        return [part.flatten(0, 1) for part in parts]


@dataclass(frozen=True)
class Planned:
    """A tensor that is about to be written: `make` builds it when its turn comes; `copy` as of its entry."""

    key: str
    bytes: int
    copy: bool
    make: Callable[[], Tensor]


def entries_of(model: HybridLM, entries: Iterable[Entry]) -> list[Entry]:
    """The entries whose parameters this model has (no biases or head where it has none)."""
    names = {name for name, _ in model.named_parameters()}
    return [entry for entry in entries if names.issuperset(entry.parameters)]


@torch.no_grad()
def load(model: HybridLM, source: Source, entries: Iterable[Entry], ignored: Callable[[str], bool]) -> None:
    """Fill every parameter of the model.

    Args:
        ignored: tells the keys that may be there and say nothing new.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape or no floating-point tensor; the message names file,
            key and shapes.
    """
    parameters = dict(model.named_parameters())
    mapped = entries_of(model, entries)
    needed = {entry.key for entry in mapped if not entry.copy}
    known = {entry.key for entry in mapped}
    missing = sorted(needed - source.names)
    unknown = sorted(key for key in source.names - known if not ignored(key))
    if missing or unknown:
        raise ValueError(
            f"{source.directory}: the tensors do not match the configuration: "
            f"missing {missing[:8]}, unknown {unknown[:8]} ({len(missing)} and {len(unknown)} in all)"
        )
    for entry in mapped:
        if not entry.copy:
            _load_entry(entry, [parameters[name] for name in entry.parameters], source)


def _load_entry(entry: Entry, targets: list[Tensor], source: Source) -> None:
    shared = entry.split is not None and source.ranks > 1
    for rank in range(source.ranks):
        pieces = [_piece(entry, target, rank, source) for target in targets] if shared else targets
        shapes = [tuple(piece.shape) for piece in pieces]
        tensor = source.read(entry.key, rank)
        expected = entry.file_shape(shapes)
        place = source.path(entry.key, rank)
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f"{place}: {entry.key} has shape {tuple(tensor.shape)}, expected {expected}: "
                f"the configuration and the tensors differ"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"{place}: {entry.key} is {tensor.dtype}, expected floating point")
        if rank and not shared:
            if not torch.equal(tensor, source.read(entry.key, 0)):
                raise ValueError(f"{place}: {entry.key} differs from rank 0's: the files are of different checkpoints")
            continue
        interleave = max(1, entry.interleave // source.ranks) if shared else entry.interleave
        for piece, part in zip(pieces, entry.unpack(tensor, shapes, interleave), strict=True):
            piece.copy_(part)


def _piece(entry: Entry, target: Tensor, rank: int, source: Source) -> Tensor:
    """The part of a parameter that a rank has, a view."""
    assert entry.split is not None
    size = target.shape[entry.split]
    if size % source.ranks or (entry.interleave > 1 and entry.interleave % source.ranks):
        raise ValueError(
            f"{source.directory}: {entry.key} cannot be shared by {source.ranks} ranks: "
            f"{size} rows in {entry.interleave} groups"
        )
    return target.narrow(entry.split, rank * (size // source.ranks), size // source.ranks)


def plan(model: HybridLM, entries: Iterable[Entry]) -> list[Planned]:
    """The file's tensors, on the CPU, each built when it is asked for."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    planned = []
    for entry in entries_of(model, entries):
        parts = [parameters[name] for name in entry.parameters]
        size = sum(math.prod(part.shape) * part.element_size() for part in parts)
        planned.append(Planned(entry.key, size, entry.copy, partial(_make, entry, parts)))
    return planned


def _make(entry: Entry, parts: list[Tensor]) -> Tensor:
    return entry.pack([part.cpu() for part in parts]).contiguous()
