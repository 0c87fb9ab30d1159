"""Several matrices of the same input as one launch, read where they lie in the model, each once.

One or two rows are products and sums: a program takes a few outputs and walks along their weights, its threads side by
side, and adds up at the end. More rows are matrix products, the rows padded to 16, 32 or 64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops._launch import Launched, power_of_2
from model.ops.ssd.triton.parts import dot

MOST_PARTS = 5
"""Matrices of one launch: Mamba2's z, x, B, C and dt."""

MOST_SUMMED = 2
"""Rows taken as products and sums: the sums of each stay in registers."""

MOST_ROWS = 64
"""Of one matrix product; of more rows, every 64 read the weights again."""


@triton.jit
def _place(
    w0, w1, w2, w3, w4, OUT0: tl.constexpr, OUT1: tl.constexpr, OUT2: tl.constexpr, OUT3: tl.constexpr,
    OUT4: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """This program's matrix, how many outputs that has, the program's first among them, and theirs among all."""
    block = tl.program_id(0)
    w, outs, local, before = w0, OUT0, block, 0
    first1: tl.constexpr = (OUT0 + N - 1) // N
    first2: tl.constexpr = first1 + (OUT1 + N - 1) // N
    first3: tl.constexpr = first2 + (OUT2 + N - 1) // N
    first4: tl.constexpr = first3 + (OUT3 + N - 1) // N
    if OUT1 > 0:
        here = block >= first1
        w, outs = tl.where(here, w1, w), tl.where(here, OUT1, outs)
        local, before = tl.where(here, block - first1, local), tl.where(here, OUT0, before)
    if OUT2 > 0:
        here = block >= first2
        w, outs = tl.where(here, w2, w), tl.where(here, OUT2, outs)
        local, before = tl.where(here, block - first2, local), tl.where(here, OUT0 + OUT1, before)
    if OUT3 > 0:
        here = block >= first3
        w, outs = tl.where(here, w3, w), tl.where(here, OUT3, outs)
        local, before = tl.where(here, block - first3, local), tl.where(here, OUT0 + OUT1 + OUT2, before)
    if OUT4 > 0:
        here = block >= first4
        w, outs = tl.where(here, w4, w), tl.where(here, OUT4, outs)
        local, before = tl.where(here, block - first4, local), tl.where(here, OUT0 + OUT1 + OUT2 + OUT3, before)
    return w, outs, local * N, before


@triton.jit
def _finished(y, bias, at, inside, scale, BIAS: tl.constexpr, ACTIVATION: tl.constexpr):
    if BIAS:
        y += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "relu2":
        y = tl.where(y < 0, 0.0, y)  # a NaN stays
        y = y * y
    if ACTIVATION == "gelu":
        y = 0.5 * y * (1 + tl.erf(y * 0.7071067811865476))
    return y * scale


@Launched
@triton.jit
def sums_kernel(
    x, w0, w1, w2, w3, w4, bias, y, scale,
    OUT0: tl.constexpr, OUT1: tl.constexpr, OUT2: tl.constexpr, OUT3: tl.constexpr, OUT4: tl.constexpr,
    K: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, EVEN: tl.constexpr, PIPELINE: tl.constexpr,
    TWO: tl.constexpr, BIAS: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """N outputs of one row or two."""
    w, outs, first, before = _place(w0, w1, w2, w3, w4, OUT0, OUT1, OUT2, OUT3, OUT4, N)
    n, k = tl.arange(0, N), tl.arange(0, BLOCK)
    row = tl.minimum(first + n, outs - 1)  # the last block reads its last weights again, and drops them
    place = w + row.to(tl.int64)[:, None] * K + k[None, :]
    sums = tl.zeros((N, BLOCK), tl.float32)
    others = sums
    for start in tl.range(0, K, BLOCK, num_stages=PIPELINE):
        if EVEN:
            ws = tl.load(place + start, eviction_policy="evict_first").to(tl.float32)
            sums += ws * tl.load(x + start + k).to(tl.float32)[None, :]
            if TWO:
                others += ws * tl.load(x + K + start + k).to(tl.float32)[None, :]
        else:
            inside = start + k < K
            ws = tl.load(place + start, mask=inside[None, :], other=0.0, eviction_policy="evict_first").to(tl.float32)
            sums += ws * tl.load(x + start + k, mask=inside, other=0.0).to(tl.float32)[None, :]
            if TWO:
                others += ws * tl.load(x + K + start + k, mask=inside, other=0.0).to(tl.float32)[None, :]
    at, inside = before + first + n, first + n < outs
    out = _finished(tl.sum(sums, 1), bias, at, inside, scale, BIAS, ACTIVATION)
    tl.store(y + at, out.to(y.dtype.element_ty), mask=inside)
    if TWO:
        out = _finished(tl.sum(others, 1), bias, at, inside, scale, BIAS, ACTIVATION)
        tl.store(y + (OUT0 + OUT1 + OUT2 + OUT3 + OUT4) + at, out.to(y.dtype.element_ty), mask=inside)


@Launched
@triton.jit
def products_kernel(
    x, w0, w1, w2, w3, w4, bias, y, scale, rows,
    OUT0: tl.constexpr, OUT1: tl.constexpr, OUT2: tl.constexpr, OUT3: tl.constexpr, OUT4: tl.constexpr,
    K: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, EVEN: tl.constexpr,
    BIAS: tl.constexpr, ACTIVATION: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """N outputs of up to M rows."""
    w, outs, first, before = _place(w0, w1, w2, w3, w4, OUT0, OUT1, OUT2, OUT3, OUT4, N)
    m, n, k = tl.program_id(1) * M + tl.arange(0, M), tl.arange(0, N), tl.arange(0, BLOCK)
    row = tl.minimum(first + n, outs - 1)
    place = w + row.to(tl.int64)[:, None] * K + k[None, :]
    of_x = x + tl.minimum(m, rows - 1)[:, None] * K + k[None, :]
    sums = tl.zeros((M, N), tl.float32)
    for start in range(0, K, BLOCK):
        if EVEN:
            ws, xs = tl.load(place + start), tl.load(of_x + start)
        else:
            inside = (start + k < K)[None, :]
            ws, xs = tl.load(place + start, mask=inside, other=0.0), tl.load(of_x + start, mask=inside, other=0.0)
        sums = dot(xs, tl.trans(ws), PRECISION, sums)
    at, inside = before + first + n, first + n < outs
    out = _finished(sums, bias, at[None, :], inside[None, :], scale, BIAS, ACTIVATION)
    place = y + m[:, None] * (OUT0 + OUT1 + OUT2 + OUT3 + OUT4) + at[None, :]
    tl.store(place, out.to(y.dtype.element_ty), mask=(m < rows)[:, None] & inside[None, :])


@Launched
@triton.jit
def gate_kernel(x, y, d: tl.constexpr, BLOCK: tl.constexpr):
    """silu(gate) * up of rows that hold d of each, the gate first."""
    at, row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    inside = at < d
    gate = tl.load(x + row * (2 * d) + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * (2 * d) + d + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * d + at, (gate / (1 + tl.exp(-gate)) * up).to(y.dtype.element_ty), mask=inside)


@dataclass(frozen=True)
class Plan:
    """How a product is divided: a function of shapes and dtype alone, so that results are.

    Attributes:
        outs: of each matrix.
        constants: of the kernel, `sums_kernel` where there is no M among them.
        options: of the launch.
    """

    outs: tuple[int, ...]
    constants: dict[str, Any]
    options: dict[str, int]

    def grid(self, rows: int) -> tuple[int, ...]:
        """Programs: of all blocks of outputs, by all blocks of rows."""
        blocks = sum(-(-outs // self.constants["N"]) for outs in self.outs)
        return (blocks, -(-rows // self.constants["M"])) if "M" in self.constants else (blocks,)


PROGRAMS = 512
"""That products and sums should have at least, some four for each multiprocessor; else each takes fewer outputs."""

OUTS = 4
"""That a program of products and sums takes at most: it reads each input once for all of them."""

LONGEST = 1024
"""Weights of an output that a program reads at once."""


@cache
def planned(rows: int, outs: tuple[int, ...], k: int, dtype: torch.dtype) -> Plan:
    """For `rows` rows of k inputs."""
    constants: dict[str, Any] = {f"OUT{i}": out for i, out in enumerate((*outs, *(0,) * (MOST_PARTS - len(outs))))}
    constants |= {"K": k}
    if rows <= MOST_SUMMED:
        n = OUTS
        while n > 1 and sum(outs) < n * PROGRAMS:
            n //= 2
        constants |= {"N": n, "TWO": rows == 2, "PIPELINE": 1} | _blocks(k, LONGEST)
        return Plan(outs, constants, {"num_warps": 4, "num_stages": 1})
    m = min(MOST_ROWS, max(16, power_of_2(rows)))
    precision = "ieee" if dtype is torch.float32 else "tf32"  # of no meaning to halves
    constants |= {"M": m, "N": 32, "PRECISION": precision} | _blocks(k, 512 // dtype.itemsize)
    return Plan(outs, constants, {"num_warps": 4, "num_stages": 4 if m < MOST_ROWS else 3})


def _blocks(k: int, longest: int) -> dict[str, Any]:
    """Largest block that divides k, or where that is small one that does not."""
    even = min(longest, k & -k)
    if even >= min(128, longest):
        return {"BLOCK": even, "EVEN": True}
    return {"BLOCK": min(longest, max(16, power_of_2(k))), "EVEN": False}


class Linear:
    """Linear layers of the same input: (rows, in) -> (rows, sum of outs), the outputs one after another."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        *,
        activation: str | None = None,
        scale: float = 1.0,
        out_dtype: torch.dtype | None = None,
    ) -> None:
        """`activation`: "relu2" or "gelu" of the outputs; `scale`: what they are multiplied with in the end."""
        self._weights = [weight.detach() for weight in weights]
        self._outs = tuple(len(weight) for weight in weights)
        self._bias = None
        if any(bias is not None for bias in biases):
            pairs = zip(weights, biases, strict=True)
            self._bias = torch.cat([w.new_zeros(len(w)) if bias is None else bias.detach() for w, bias in pairs])
        self._activation, self._scale = activation, scale
        self._dtype = weights[0].dtype if out_dtype is None else out_dtype

    def __call__(self, x: Tensor) -> Tensor:
        """x must be contiguous."""
        rows, k = x.shape
        plan = planned(rows, self._outs, k, x.dtype)
        y = x.new_empty(rows, sum(self._outs), dtype=self._dtype)
        weights = [*self._weights, *(self._weights[0],) * (MOST_PARTS - len(self._weights))]
        arguments = (x, *weights, x if self._bias is None else self._bias, y, self._scale)
        constants = plan.constants | {"BIAS": self._bias is not None, "ACTIVATION": self._activation}
        if "M" in constants:
            products_kernel[plan.grid(rows)](*arguments, rows, **constants, **plan.options)
        else:
            sums_kernel[plan.grid(rows)](*arguments, **constants, **plan.options)
        return y


def gated(x: Tensor) -> Tensor:
    """silu(gate) * up: (rows, 2 d) -> (rows, d)."""
    rows, d = len(x), x.shape[1] // 2
    y, block = x.new_empty(rows, d), 256
    gate_kernel[(-(-d // block), rows)](x, y, d=d, BLOCK=block, num_warps=4)
    return y
