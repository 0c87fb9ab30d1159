"""What the shims share: how they note their calls, refuse what ours cannot do, and say for which peer they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class NotApplicableError(NotImplementedError):
    """A peer's function offers what our operators do not; says what that is."""


@dataclass
class Record:
    """What the shims did since `clear`: without it a test that never reached our operators would count as passed."""

    calls: int = 0
    refusal: str | None = None

    def clear(self) -> None:
        self.calls, self.refusal = 0, None


RECORD = Record()


def exposed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Note the function's calls and refusals, which a test could otherwise swallow."""

    @wraps(function)
    def noted(*args: Any, **kwargs: Any) -> Any:
        RECORD.calls += 1
        try:
            return function(*args, **kwargs)
        except NotApplicableError as refusal:
            RECORD.refusal = str(refusal)
            raise

    return noted


@dataclass(frozen=True)
class Peer:
    """A project whose tests we run; paths and modules are its own."""

    package: str
    tests: tuple[str, ...]
    """Files of its checkout, of which it has at least one."""
    replaced: Mapping[str, Mapping[str, Any]]
    """By module, what of ours stands there under which name; everything else is loaded from the checkout."""
    bare: frozenset[str] = frozenset()
    """Packages whose `__init__` is not run, since it imports far more than the tests need."""
    extensions: frozenset[str] = frozenset()
    """Compiled modules that its sources import and nobody calls here."""
    not_applicable: Mapping[str, str] = field(default_factory=dict)
    """Tests of what is no operator of ours, with the reason."""


def wide(tensor: Tensor) -> Tensor:
    """In fp32, or fp64 if it is that: the precision in which peers' kernels compute."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def spans(cu_seqlens: Tensor) -> list[slice]:
    """The positions of each packed sequence, between bounds (sequences + 1,)."""
    return [slice(*bounds) for bounds in pairwise(cu_seqlens.tolist())]


def documents(seq_idx: Tensor) -> Tensor:
    """(batch, seqlen) int32 numbers that never decrease, as ours want them, of the runs of equal `seq_idx`."""
    changes = seq_idx[:, 1:] != seq_idx[:, :-1]
    return F.pad(changes.cumsum(1), (1, 0)).to(torch.int32)
