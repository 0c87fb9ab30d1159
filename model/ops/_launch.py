"""Launches of Triton kernels at a fraction of the host's time.

At every launch Triton looks at every argument to find the compiled kernel that fits: some 30 us. A call with the same
numbers, dtypes and constants needs the same one, as long as all its tensors start at multiples of 16 bytes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

ALIGNMENT = 16
"""Bytes. Triton compiles apart for what starts elsewhere."""

MOST = 1024
"""Calls that a kernel remembers: the lengths of texts are among their numbers."""


class Launched:
    """A triton.jit function that remembers which compiled kernel a call got: `kernel[grid](*arguments, **constants)`.

    Arguments are tensors, the first of them on the current device, and numbers. Constexprs come last in the signature;
    those given by name, and options such as num_warps, are hashable.
    """

    def __init__(self, jit: Any) -> None:
        self.jit = jit
        self._compiled: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return partial(self._launch, grid)

    def _launch(self, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        key: list[Any] = [*constants.items()]
        values, pointers = list(arguments), 0
        for i, argument in enumerate(arguments):
            kind = type(argument)
            if kind is int:
                key.append(argument)
            elif kind is float or kind is bool:
                key.append((kind, argument))  # 1, 1.0 and True are equal
            else:
                values[i] = argument.data_ptr()
                pointers |= values[i]
                key += (argument.dtype, argument.device)  # of a CPU's memory Triton knows only while it is a tensor
        call = tuple(key)
        if pointers % ALIGNMENT:
            self.jit[grid](*arguments, **constants)
            return
        if (known := self._compiled.get(call)) is not None:  # once: another thread may forget it meanwhile
            compiled, last = known
            compiled[(*grid, 1, 1)[:3]](*values, *last)
            return
        compiled = self.jit[grid](*arguments, **constants)
        if compiled is None:  # by the interpreter
            return
        if len(self._compiled) >= MOST:
            self._compiled.clear()
        self._compiled[call] = compiled, tuple(constants[name] for name in self.jit.arg_names[len(arguments) :])


def power_of_2(least: int) -> int:
    """The smallest that is at least so much: Triton's own, for kernels too, takes the host 5 us."""
    return 1 << (least - 1).bit_length()
