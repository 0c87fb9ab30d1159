"""Whether compiled kernels do what torch does: compilers have been seen to be wrong, and a wrong kernel trains."""

import warnings
from collections.abc import Callable, Sequence
from operator import index
from typing import Any, TypeVar

import torch
from torch import Tensor

Pair = tuple[Sequence[Tensor], Sequence[Tensor]]
"""What the kernels make of a small input, and what torch makes of it in fp64."""


Question = TypeVar("Question", bound=Callable[..., bool])


def constant(function: Question) -> Question:
    """Have torch.compile ask now, not look inside. That loads its compiler, which takes seconds: only for a GPU."""
    if not torch.cuda.is_available():
        return function
    known = torch.compiler.assume_constant_result(function)

    def ask(*arguments: Any) -> bool:
        """With sizes that it may take for symbols as numbers, each of which it then compiles for."""
        return known(*[index(each) if isinstance(each, int) else each for each in arguments])

    return ask  # type: ignore[return-value]


def trusted(kernels: str, compare: Callable[[], Pair], tolerance: float) -> bool:
    """Compare once (the caller remembers); warn, naming the kernels, where they differ or do not run.

    Args:
        tolerance: largest difference, relative to a tensor's largest value, that rounding explains.
    """
    try:
        good, why = agree(*compare(), tolerance), "do not compute what torch does"
    except Exception as error:  # a kernel that cannot be compiled or launched: nobody needs it
        good, why = False, f"do not run ({error})"
    if not good:
        warnings.warn(f"{kernels} {why}; the slower torch path is used", stacklevel=2)
    return good


def agree(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> bool:
    """Whether each of ours is within the tolerance; what is not finite is not."""
    return all(
        bool((mine.double() - other).abs().max() <= tolerance * other.abs().max())
        for mine, other in zip(ours, theirs, strict=True)
    )
