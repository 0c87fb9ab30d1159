"""Launches that remember the compiled kernel give what launches that look for it give."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from model.ops._launch import MOST, Launched


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
        return lambda *arguments, **constants: self._compile(grid, *arguments, *constants.values())

    def _compile(self, *call: Any) -> "Compiled":
        self.asked.append(call)
        return Compiled(self.launched)


class Compiled:
    """What it answers with."""

    def __init__(self, launched: list[tuple[Any, ...]]) -> None:
        self._launched = launched

    def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
        return lambda *values: self._launched.append((grid, *values))


def test_a_call_is_looked_up_once() -> None:
    compiler = Compiler()
    kernel, x = Launched(compiler), torch.zeros(64)
    for _ in range(3):
        kernel[(5,)](x, 7, OFFSET=2, BLOCK=16, num_warps=4)
    assert len(compiler.asked) == 1
    assert compiler.launched == [((5, 1, 1), x.data_ptr(), 7, 16, 2)] * 2


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
    assert [call[1] - x.data_ptr() for call in compiler.launched] == [0, 16]


def test_what_is_remembered_is_bounded() -> None:
    compiler = Compiler()
    kernel, x = Launched(compiler), torch.zeros(64)
    for n in range(3 * MOST):
        kernel[(1,)](x, n, BLOCK=16, OFFSET=0)
    assert len(kernel._compiled) <= MOST
