"""Launches that remember the compiled kernel give what launches that look for it give."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton import knobs

from model.ops import _launch
from model.ops._launch import ALIGNMENT, LINE, MOST, Launched, Launches, aligned


@triton.jit
def scaled(x, y, n, factor, BLOCK: tl.constexpr, OFFSET: tl.constexpr):  # fmt: skip
    """y is factor x + OFFSET."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = factor * tl.load(x + at, mask=at < n, other=0.0).to(tl.float32) + OFFSET
    tl.store(y + at, value.to(y.dtype.element_ty), mask=at < n)


def test_calls_that_differ_in_anything_get_their_own_kernel(device: torch.device) -> None:
    kernel = Launched(scaled)
    memory = torch.arange(100, device=device, dtype=torch.float32)
    for _ in range(2):  # the second time they are known
        for dtype in (torch.float32, torch.bfloat16):
            for first in (0, 1, 16):  # 1 starts between multiples of 16 bytes
                for n in (1, 16, 33):
                    for factor in (1, 1.0, 2.5, 3):
                        for offset in (0, 2):
                            x = memory.to(dtype)[first:]
                            y = torch.zeros(64, device=device, dtype=dtype)
                            kernel[(-(-n // 16),)](x, y, n, factor, BLOCK=16, OFFSET=offset, num_warps=1)
                            assert torch.equal(y[:n], (float(factor) * x[:n].float() + offset).to(dtype))
                            assert not y[n:].any()


class Compiler:
    """In place of a triton.jit function where there is no GPU: notes what it is asked for and what is launched."""

    arg_names = ("x", "n", "BLOCK", "OFFSET")

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.launched: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., "Compiled"]:
        return lambda *arguments, **options: self._compile(grid, *arguments, *options.values())

    def _compile(self, *call: Any) -> "Compiled":
        self.asked.append(call)
        return Compiled(self.launched)


class Compiled:
    """What it answers with: what Triton's own has."""

    function, packed_metadata = "function", "metadata"

    def __init__(self, launched: list[tuple[Any, ...]]) -> None:
        self._launched = launched

    def run(self, x: int, y: int, z: int, stream: Any, function: Any, metadata: Any, *hooks: Any) -> None:
        told, arguments = hooks[:3], hooks[3:]
        assert (function, metadata, told) == ("function", "metadata", (None, None, None))
        self._launched.append(((x, y, z), stream, *arguments))


@pytest.fixture(autouse=True)
def streams(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The current stream of each device that is none: of a CPU's tensors, which only a Compiler takes."""
    current = {-1: "current"}

    def of_device(device: int) -> Any:
        return current[device] if device in current else triton.runtime.driver.active.get_current_stream(device)

    monkeypatch.setattr(_launch, "driver", SimpleNamespace(active=SimpleNamespace(get_current_stream=of_device)))
    return current


def test_a_call_is_looked_up_once(streams: dict[int, str]) -> None:
    compiler = Compiler()
    kernel, x = Launched(compiler), torch.zeros(64)
    for stream in ("one", "one", "other"):
        streams[-1] = stream
        kernel[(5,)](x, 7, OFFSET=2, BLOCK=16, num_warps=4)
    assert len(compiler.asked) == 1
    assert compiler.launched == [((5, 1, 1), stream, x.data_ptr(), 7, 16, 2) for stream in ("one", "other")]


def test_a_launch_that_is_kept_takes_other_tensors() -> None:
    compiler = Compiler()
    compiler.arg_names = ("n", "x", "BLOCK", "y")  # numbers anywhere
    launch = Launched(compiler).of((2, 3), BLOCK=16, n=7, num_warps=4)
    tensors = [torch.zeros(64) for _ in range(4)]
    launch(*tensors[:2])
    launch(*tensors[2:])
    assert compiler.asked == [((2, 3, 1), 7, tensors[0], 16, tensors[1], 4)]
    assert compiler.launched == [((2, 3, 1), "current", 7, tensors[2].data_ptr(), 16, tensors[3].data_ptr())]


def test_launches_share_their_tensors_and_a_buffer() -> None:
    compiler, other = Compiler(), Compiler()
    other.arg_names = ("y", "x", "n")
    launches = Launches(("a", "b"), {"x": ((5,), torch.bfloat16), "c": ((2, 3), torch.float32)})
    launches.add(Launched(compiler), (2,), n=7, BLOCK=16, OFFSET=0, num_warps=4)
    launches.add(Launched(other), (3, 4), {"y": "b", "x": "c"}, n=8)
    tensors = [torch.zeros(64) for _ in range(4)]
    launches(*tensors[:2])
    ((_, x, *_), (_, b, c, n)) = compiler.asked + other.asked
    assert (x.dtype, x.shape, c.dtype, c.shape) == (torch.bfloat16, (5,), torch.float32, (2, 3))
    assert x.data_ptr() % ALIGNMENT == 0
    assert c.data_ptr() == x.data_ptr() + LINE
    assert (b.data_ptr(), n) == (tensors[1].data_ptr(), 8)
    launches(*tensors[2:])
    ((grid, _, start, *numbers),) = compiler.launched
    assert (grid, *numbers) == ((2, 1, 1), 7, 16, 0)
    assert other.launched == [((3, 4, 1), "current", tensors[3].data_ptr(), start + LINE, 8)]
    assert len(compiler.asked) == len(other.asked) == 1


@pytest.mark.parametrize("name", ["launch_enter_hook", "launch_exit_hook"])
def test_hooks_hear_of_launches(name: str) -> None:
    """Through Triton's own launch, which calls them."""
    compiler, hooks = Compiler(), getattr(knobs.runtime, name)
    kernel, x = Launched(compiler), torch.zeros(64)

    def launch() -> tuple[int, int]:
        kernel[(1,)](x, 7, BLOCK=16, OFFSET=0)
        return len(compiler.asked), len(compiler.launched)

    assert launch() == (1, 0)
    hooks.add(print)
    try:
        assert launch() == (2, 0)
    finally:
        hooks.remove(print)
    assert launch() == (2, 1)


def test_tensors_that_start_elsewhere_are_copied() -> None:
    x = torch.arange(64)
    good, moved = aligned(x[2:], x[1:])
    assert good.data_ptr() == x[2:].data_ptr()
    assert moved.data_ptr() % ALIGNMENT == 0
    assert torch.equal(moved, x[1:])


def test_calls_that_triton_compiles_apart_are_looked_up_apart() -> None:
    compiler = Compiler()
    kernel, x = Launched(compiler), torch.zeros(64)
    calls: list[tuple[torch.Tensor, Any, dict[str, Any]]] = [
        (tensor, n, {"BLOCK": block, "OFFSET": 0, "num_warps": warps})
        for tensor in (x, x.bfloat16())
        for n in (1, 1.0, True, 2, 16)
        for block in (16, 32)
        for warps in (1, 4)
    ]
    for _ in range(2):
        for tensor, n, constants in calls:
            kernel[(1,)](tensor, n, **constants)
    assert len(compiler.asked) == len(compiler.launched) == len(calls)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="streams and graphs take a GPU")
def test_launches_are_on_the_current_stream_and_in_graphs() -> None:
    kernel, x, y = Launched(scaled), torch.ones(64, device="cuda"), torch.zeros(64, device="cuda")
    launch = kernel.of((4,), n=64, factor=2.0, BLOCK=16, OFFSET=1)
    for call in (lambda: kernel[(4,)](x, y, 64, 2.0, BLOCK=16, OFFSET=1), lambda: launch(x, y)):
        call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # on a stream of its own: a launch on another one is an error
            call()
        y.zero_()
        graph.replay()
        assert torch.equal(y, torch.full_like(y, 3.0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a tensor that the kernel cannot reach takes a GPU")
def test_a_tensor_elsewhere_is_an_error_after_good_calls_too() -> None:
    kernel, x = Launched(scaled), torch.zeros(64, device="cuda")
    for _ in range(2):
        kernel[(1,)](x, x, 16, 1.0, BLOCK=16, OFFSET=0)
    with pytest.raises(ValueError, match="cannot be accessed from Triton"):
        kernel[(1,)](x, x.cpu(), 16, 1.0, BLOCK=16, OFFSET=0)


def test_a_tensor_that_starts_elsewhere_is_looked_up_every_time() -> None:
    compiler = Compiler()
    kernel, x = Launched(compiler), torch.zeros(64)
    for first in (0, 1, 0, 1, 4):
        kernel[(1,)](x[first:], 1, BLOCK=16, OFFSET=0)
    assert [call[1].data_ptr() - x.data_ptr() for call in compiler.asked] == [0, 4, 4]
    assert [call[2] - x.data_ptr() for call in compiler.launched] == [0, 16]


def test_what_is_remembered_is_bounded() -> None:
    compiler = Compiler()
    kernel, x = Launched(compiler), torch.zeros(64)
    for n in range(3 * MOST):
        kernel[(1,)](x, n, BLOCK=16, OFFSET=0)
    assert len(kernel._launches) <= MOST
