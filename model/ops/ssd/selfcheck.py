"""A small input for the SSD's kernels, and torch's results in fp64."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from model.ops._common import full_precision
from model.ops._selfcheck import Pair, constant, trusted
from model.ops.ssd.torch import backward, forward

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Largest difference, relative to the largest value, that rounding explains on a small input."""


@constant
def passes(device: str, dtype: torch.dtype, headdim: int, dstate: int) -> bool:
    """Compare Triton's outputs and gradients, once per process, device, dtype and sizes of a state."""
    return _passes(device, dtype, headdim, dstate)


@cache
def _passes(device: str, dtype: torch.dtype, headdim: int, dstate: int) -> bool:
    from model.ops.ssd import triton

    def run(slice_bytes: int | None, inputs: tuple, documents: Tensor, options: tuple, grads: tuple) -> tuple:
        y, final, *saved = triton.forward(*flat(inputs, None, documents, options, slice_bytes))
        return y, final, *triton.backward(*flat(grads, inputs, documents, saved, options, slice_bytes))

    def as_torch(slice_bytes: int | None, heads: int) -> bool:
        sizes = (device, dtype, headdim, dstate, heads)
        return trusted(kernels, lambda: compare(partial(run, slice_bytes), *sizes), TOLERANCE[dtype])

    kernels = f"the SSD's kernels for {dtype} and states of {headdim} x {dstate} on {device}"
    # The backward at once, and in slices; on Hopper the kernels are others if a group has an odd number of heads
    return as_torch(None, 2) and as_torch(1, 2) and as_torch(None, 3)


def compare(
    run: Callable[..., tuple[Tensor, ...]], device: str, dtype: torch.dtype, headdim: int, dstate: int, heads: int = 2
) -> Pair:
    """What `run`, from inputs, documents, options and gradients of the outputs, makes of them, and what torch does."""
    make = torch.Generator().manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=make, dtype=torch.float32).to(device, dtype)

    seqlen = 600  # several segments of several chunks, the last of them not full
    A, D, bias = -normal(heads, dtype=torch.float32).abs(), *(normal(heads, dtype=torch.float32) for _ in range(2))
    x, grad, dt = normal(1, seqlen, heads, headdim), normal(1, seqlen, heads, headdim), normal(1, seqlen, heads)
    B, C = (normal(1, seqlen, 1, dstate) for _ in range(2))
    documents = (torch.arange(seqlen, device=device) > 290).to(torch.int32)[None]
    options = (True, (0.0, float("inf")))
    with torch.no_grad(), full_precision(x):
        inputs = (x, dt, A, B, C, D, bias)
        final = normal(1, heads, headdim, dstate, dtype=torch.float32)
        ours = run(inputs, documents, options, (grad, final))
        exact = tuple(tensor.double() for tensor in inputs)
        y, state, states = forward(*flat(exact, None, documents, options, 64))
        grads = (grad.double(), final.double())
        theirs = (y, state, *backward(*flat(grads, exact, documents, states, options, 64)))
    return ours, theirs


@constant
def step_passes(device: str, dtype: torch.dtype, headdim: int, dstate: int) -> bool:
    """As `passes`, of one position and the state after it."""
    return _step_passes(device, dtype, headdim, dstate)


@cache
def _step_passes(device: str, dtype: torch.dtype, headdim: int, dstate: int) -> bool:
    kernel = f"the kernel of one step of the SSD for {dtype} and states of {headdim} x {dstate} on {device}"
    return trusted(kernel, lambda: _compare_step(device, dtype, headdim, dstate), TOLERANCE[dtype])


def _compare_step(device: str, dtype: torch.dtype, headdim: int, dstate: int) -> Pair:
    from model.ops.ssd.step import ssd_step

    make = torch.Generator().manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=make, dtype=torch.float32).to(device, dtype)

    A, D, bias = -normal(4, dtype=torch.float32).abs(), *(normal(4, dtype=torch.float32) for _ in range(2))
    x, dt, B, C = normal(3, 4, headdim), normal(3, 4), normal(3, 2, dstate), normal(3, 2, dstate)
    inputs = (x, dt, A, B, C, normal(3, 4, headdim, dstate, dtype=torch.float32))
    exact = [tensor.double() for tensor in inputs]
    options = {"dt_softplus": True, "dt_limit": (0.1, 2.0)}
    with torch.no_grad():
        theirs = ssd_step(*exact, D=D.double(), dt_bias=bias.double(), backend="torch", **options)  # type: ignore[arg-type]
        ours = ssd_step(*inputs, D=D, dt_bias=bias, backend="triton", **options)  # type: ignore[arg-type]
    return ours, theirs


def flat(*arguments: Any) -> list[Any]:
    """Arguments, those in tuples one by one."""
    return [one for argument in arguments for one in (argument if isinstance(argument, tuple | list) else (argument,))]
