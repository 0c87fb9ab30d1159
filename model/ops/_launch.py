"""Launches of Triton kernels at a fraction of the host's time.

At every launch Triton looks at every argument to find the compiled kernel that fits: some 30 us. A call with the same
numbers, dtypes and constants needs the same one, as long as all its tensors start at multiples of 16 bytes. Then it is
handed to Triton's launcher, on the current stream, without a look at the hooks that nobody has set.
"""

from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from functools import partial
from itertools import accumulate
from math import prod
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.runtime import driver

ALIGNMENT = 16
"""Bytes. Triton compiles apart for what starts elsewhere."""

LINE = 128
"""Bytes: of a cache, and a multiple of ALIGNMENT."""

MOST = 1024
"""Calls that are remembered: the lengths of texts are among their numbers."""

DTYPE, DEVICE = attrgetter("dtype"), Tensor.get_device
"""Of a tensor, for `map`."""

T = TypeVar("T")


class Remembered(dict[tuple[Any, ...], T]):
    """What is made once for each kind of call; with MOST of them it starts anew."""

    def add(self, call: tuple[Any, ...], made: T) -> T:
        if len(self) >= MOST:
            self.clear()
        self[call] = made
        return made


class Launched:
    """A triton.jit function that remembers its launches: `kernel[grid](*arguments, **constants)`.

    Arguments are tensors, the first of them on the current device, and numbers. Constexprs come last in the signature;
    those given by name, and options such as num_warps, are hashable.
    """

    def __init__(self, jit: Any) -> None:
        self.jit = jit
        self._launches: Remembered[Launch] = Remembered()

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return partial(self._launch, grid)

    def of(self, grid: tuple[int, ...], **given: Any) -> "Launch":
        """A launch for tensors that are yet to come: what is no tensor is given by name."""
        return Launch(self.jit, grid, given, [name for name in self.jit.arg_names if name not in given], {})

    def _launch(self, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        key: list[Any] = [grid, *constants, *constants.values()]
        tensors, pointers, starts = [], [], 0
        for argument in arguments:
            kind = type(argument)
            if kind is int:
                key.append(argument)
            elif kind is float or kind is bool:
                key.append((kind, argument))  # 1, 1.0 and True are equal
            else:
                pointer = argument.data_ptr()
                tensors.append(argument)
                pointers.append(pointer)
                starts |= pointer
                key += (argument.dtype, DEVICE(argument))  # Triton tells a CPU's memory only while it is a tensor
        if starts % ALIGNMENT:
            self.jit[grid](*arguments, **constants)
            return
        call = tuple(key)
        if (launch := self._launches.get(call)) is None:
            named = zip(self.jit.arg_names, arguments, strict=False)
            numbers = {name: argument for name, argument in named if not isinstance(argument, Tensor)}
            launch = self._launches.add(call, self.of(grid, **numbers, **constants))
        launch._run(tensors, pointers)


class Launch:
    """A kernel with its grid, its numbers and its constants: `launch(*tensors)`, these in the order of `tensors`.

    Tensors have the same dtypes each time, are on one device, the current one, and start at multiples of ALIGNMENT:
    nobody looks.
    """

    def __init__(
        self, jit: Any, grid: tuple[int, ...], given: dict[str, Any], tensors: Sequence[str], named: dict[str, str]
    ) -> None:
        """`given` is by name what is no tensor; `named` says which arguments are called otherwise in `tensors`."""
        self._jit, self._grid = jit, (*grid, 1, 1)[:3]
        numbers = [name for name in jit.arg_names if name in given]
        self._given = tuple(given[name] for name in numbers)
        self._options = {name: value for name, value in given.items() if name not in numbers}
        places = [*tensors, *numbers]
        self._in_order = itemgetter(*(places.index(named.get(name, name)) for name in jit.arg_names))
        self._compiled: Any = None

    def __call__(self, *tensors: Tensor) -> None:
        self._run(tensors, map(Tensor.data_ptr, tensors))

    def _run(self, tensors: Sequence[Tensor], pointers: Iterable[int]) -> None:
        if self.is_known() and not _watched():
            self.start(driver.active.get_current_stream(tensors[0].get_device()), pointers)
        else:
            self.look_up(tensors)

    def is_known(self) -> bool:
        """Whether its compiled kernel is: the interpreter has none."""
        return self._compiled is not None

    def look_up(self, tensors: Iterable[Tensor]) -> None:
        """Launch it as Triton does, and keep what that compiles."""
        arguments = self._in_order((*tensors, *self._given))
        self._compiled = self._jit[self._grid](*arguments, **self._options)

    def start(self, stream: int, pointers: Iterable[int]) -> None:
        """Launch what is known."""
        compiled = self._compiled
        handles = (stream, compiled.function, compiled.packed_metadata)
        compiled.run(*self._grid, *handles, None, None, None, *self._in_order((*pointers, *self._given)))


class Launches:
    """Kernels one after another on the same tensors: `launches(*tensors)`, in the order of `names`.

    Those that nobody else wants are parts of one buffer, which a call makes: `scratch` has their shapes and dtypes by
    name. What a Launch says of its tensors holds for all.
    """

    def __init__(self, names: Iterable[str], scratch: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        self._names, self._scratch = (*names, *scratch), scratch
        sizes = [-(-prod(shape) * dtype.itemsize // LINE) * LINE for shape, dtype in scratch.values()]
        *self._starts, self._size = accumulate(sizes, initial=0)
        self._launches: list[Launch] = []

    def add(self, kernel: Launched, grid: tuple[int, ...], named: dict[str, str] | None = None, **given: Any) -> None:
        """Launch this, too; `given` and `named` as a Launch has them."""
        self._launches.append(Launch(kernel.jit, grid, given, self._names, named or {}))

    def __call__(self, *tensors: Tensor) -> None:
        copy_context().run(self._launch, *tensors)  # whose allocator is ours: the caller's stays

    def _launch(self, *tensors: Tensor) -> None:
        triton.set_allocator(_allocate)
        buffer = tensors[0].new_empty(self._size, dtype=torch.uint8)
        if all(map(Launch.is_known, self._launches)) and not _watched():
            first, stream = buffer.data_ptr(), driver.active.get_current_stream(tensors[0].get_device())
            pointers = [*map(Tensor.data_ptr, tensors), *[first + start for start in self._starts]]
            for launch in self._launches:
                launch.start(stream, pointers)
        else:
            parts = zip(self._starts, self._scratch.values(), strict=True)
            views = [buffer[start:].view(dtype)[: prod(shape)].view(shape) for start, (shape, dtype) in parts]
            for launch in self._launches:
                launch.look_up((*tensors, *views))


def _allocate(size: int, alignment: int, stream: int | None) -> Tensor:
    """Memory that a kernel keeps for itself, such as how the copy engine finds tiles: Triton has none of its own."""
    return torch.empty(size, dtype=torch.uint8, device="cuda")


def _watched() -> bool:
    """Whether a profiler wants to hear of launches, which Triton's own then tell it."""
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


def aligned(*tensors: Tensor) -> list[Tensor]:
    """The same tensors, or copies of those that start elsewhere than at a multiple of ALIGNMENT."""
    return [tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor for tensor in tensors]


def power_of_2(least: int) -> int:
    """The smallest that is at least so much: Triton's own, for kernels too, takes the host 5 us."""
    return 1 << (least - 1).bit_length()
