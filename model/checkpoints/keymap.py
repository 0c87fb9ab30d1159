"""Move tensors between a model and files by a declarative key map."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import torch
from torch import Tensor

from model.checkpoints.files import Source
from model.hybrid import HybridLM

Shape = tuple[int, ...]

WEIGHTS = {torch.float64, torch.float32, torch.bfloat16, torch.float16}
_COMPARED = 2**22
"""Values that are compared at a time."""


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
        copy: the parameters are in an earlier entry as well: where this one is there, it must say the same.
        written: whether it is written.
    """

    key: str
    parameters: tuple[str, ...]
    unit_dim: bool = False
    interleave: int = 1
    split: int | None = 0
    copy: bool = False
    written: bool = True

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
    """A tensor that is about to be written: `make` builds it when its turn comes; the rest is as its entry has it."""

    key: str
    parameters: tuple[str, ...]
    shape: Shape
    dtype: torch.dtype
    copy: bool
    make: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize


def entries_of(model: HybridLM, entries: Iterable[Entry]) -> list[Entry]:
    """The entries whose parameters this model has (no biases or head where it has none)."""
    names = {name for name, _ in model.named_parameters()}
    return [entry for entry in entries if names.issuperset(entry.parameters)]


def check(model: HybridLM, source: Source, entries: Iterable[Entry]) -> None:
    """Names, shapes and dtypes of the tensors are those of the model, which may be on the meta device.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape or no weight; the message names file, key and shapes.
    """
    mapped, names = entries_of(model, entries), source.names
    missing = sorted({entry.key for entry in mapped if not entry.copy} - names)
    unknown = sorted(names - {entry.key for entry in mapped})
    if missing or unknown:
        raise ValueError(
            f"{source.directory}: the tensors do not match the configuration: "
            f"missing {missing[:8]}, unknown {unknown[:8]} ({len(missing)} and {len(unknown)} in all)"
        )
    parameters = dict(model.named_parameters())
    for rank in range(source.ranks):
        for entry in mapped:
            if entry.key in names:
                _check_entry(entry, _pieces(entry, parameters, source, rank), source, rank)


def _check_entry(entry: Entry, pieces: list[Tensor], source: Source, rank: int) -> None:
    shape, dtype = source.spec(entry.key, rank)
    expected = entry.file_shape([tuple(piece.shape) for piece in pieces])
    place = source.path(entry.key, rank)
    if shape != expected:
        raise ValueError(
            f"{place}: {entry.key} has shape {shape}, expected {expected}: "
            f"the configuration and the tensors differ{source.hint}"
        )
    if dtype not in WEIGHTS:
        raise ValueError(f"{place}: {entry.key} is {dtype}, expected floating point: float64, 32, 16 or bfloat16")


@torch.no_grad()
def fill(model: HybridLM, source: Source, entries: Iterable[Entry]) -> None:
    """Give every parameter of the model its values, from tensors that `check` has found to fit.

    One rank after the other, so that no more than one's file need be mapped.

    Raises:
        ValueError: tensors that say the same thing twice differ.
    """
    parameters, names = dict(model.named_parameters()), source.names
    mapped = [entry for entry in entries_of(model, entries) if entry.key in names]
    for rank in range(source.ranks):
        for entry in mapped:
            _fill_entry(entry, _pieces(entry, parameters, source, rank), source, rank)


def _fill_entry(entry: Entry, pieces: list[Tensor], source: Source, rank: int) -> None:
    shared = _is_shared(entry, source)
    interleave = max(1, entry.interleave // source.ranks) if shared else entry.interleave
    parts = entry.unpack(source.read(entry.key, rank), [tuple(piece.shape) for piece in pieces], interleave)
    for piece, part in zip(pieces, parts, strict=True):
        if not entry.copy and (shared or rank == 0):
            piece.copy_(part)
        elif not _same(piece, part):
            place = f"{source.path(entry.key, rank)}: {entry.key}"
            if entry.copy:
                raise ValueError(
                    f"{place} differs from the embedding, to which the configuration ties it: untie it there "
                    f"(tie_word_embeddings, tie_embeddings or untie_embeddings_and_output_weights, by format) "
                    f"if the head is a matrix of its own, or remove it"
                )
            raise ValueError(f"{place} differs from rank 0's: the files are of different checkpoints")


def _same(target: Tensor, part: Tensor) -> bool:
    """Whether every bit is alike in the target's dtype; some rows at a time, so that what is converted is small."""
    rows = max(1, _COMPARED // target[0].numel())
    pairs = zip(target.split(rows), part.split(rows), strict=True)
    return all(torch.equal(_bits(mine), _bits(other.to(mine))) for mine, other in pairs)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def _is_shared(entry: Entry, source: Source) -> bool:
    return entry.split is not None and source.ranks > 1


def _pieces(entry: Entry, parameters: Mapping[str, Tensor], source: Source, rank: int) -> list[Tensor]:
    """The parts of an entry's parameters that a rank has, views."""
    targets = [parameters[name] for name in entry.parameters]
    return [_piece(entry, target, source, rank) for target in targets] if _is_shared(entry, source) else targets


def _piece(entry: Entry, target: Tensor, source: Source, rank: int) -> Tensor:
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
        if not entry.written:
            continue
        parts = [parameters[name] for name in entry.parameters]
        shape = entry.file_shape([tuple(part.shape) for part in parts])
        dtype = reduce(torch.promote_types, [part.dtype for part in parts])
        make = partial(_make, entry, parts)
        planned.append(Planned(entry.key, entry.parameters, shape, dtype, entry.copy, make))
    return planned


def _make(entry: Entry, parts: list[Tensor]) -> Tensor:
    return entry.pack([part.cpu() for part in parts]).contiguous()
