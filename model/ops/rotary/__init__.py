"""Rotation of pairs of channels, by which attention knows positions."""

from typing import Any

from torch import Tensor, bfloat16, compiler, empty_like, float16, float32, is_grad_enabled

from model.ops._common import Backend, check_shape, check_tensors, chosen, runs_triton
from model.ops._operator import operator
from model.ops.rotary import reference, selfcheck
from model.ops.rotary.torch import forward

__all__ = ["rotary"]

WIDEST_HEAD = 1024
"""That a kernel takes whole."""

MOST_ROWS = 65535
"""Of a batch that a launch has room for."""


def rotary(x: Tensor, cos: Tensor, sin: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Rotate channel i and channel half + i by angle i of their position (Su et al. 2021, arXiv 2104.09864).

    Differentiable in x.

    Args:
        x: (batch, heads, seqlen, head_dim), in any order in memory.
        cos: (seqlen, half) or (batch, seqlen, half); channels from 2 half on stay as they are.
        sin: like cos.
        backend: "triton" (on a GPU, in fp32, bf16 or fp16), "torch", "reference" or "auto": the fastest that takes
            these inputs, or what the environment's MAMBA2_BACKEND says.

    Returns:
        (batch, heads, seqlen, head_dim) in x's dtype.

    Raises:
        ValueError: shapes that do not fit together, tensors on several devices, x of integers, angles that want
            gradients, or a backend that is unknown or does not take these inputs.
    """
    if x.dim() != 4:
        raise ValueError(f"x {tuple(x.shape)} must be (batch, heads, seqlen, head_dim)")
    batch, _, seqlen, head_dim = x.shape
    half = cos.shape[-1]
    check_shape("cos", cos, (batch, seqlen, half) if cos.dim() == 3 else (seqlen, half))
    check_shape("sin", sin, tuple(cos.shape))
    check_tensors(x=x, cos=cos, sin=sin)
    if is_grad_enabled() and (cos.requires_grad or sin.requires_grad):
        raise ValueError("the rotation has gradients of x only: detach cos and sin, or they would stay as they are")
    if not 0 < 2 * half <= head_dim:
        raise ValueError(f"cos has {half} angles for {head_dim} channels: make it 1 to {head_dim // 2}")
    path = chosen(backend, triton=lambda: _triton_takes(x, half, check=backend != "triton"))
    if path == "reference":
        return reference.rotary(x, cos, sin).to(x.dtype)
    if not is_grad_enabled() and not compiler.is_compiling():
        return _rotate(x, cos, sin, False, path)  # a decode step feels a custom op call
    return _ROTARY(x, cos, sin, False, path)


def _triton_takes(x: Tensor, half: int, check: bool) -> bool:
    """Whether there is a kernel for these inputs; with `check`, one found to work."""
    fits = x.shape[-1] <= WIDEST_HEAD and x.numel() > 0 and len(x) <= MOST_ROWS
    if x.dtype not in (float32, bfloat16, float16) or not fits or not runs_triton(x):
        return False
    return not check or (x.is_cuda and selfcheck.passes(str(x.device), x.dtype, x.shape[-1], half))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, inverse: bool, path: str) -> Tensor:
    if path == "triton":
        from model.ops.rotary import triton  # only a machine with a GPU needs Triton

        return triton.forward(x, cos, sin, inverse)
    return forward(x, cos, sin, inverse)


def _rotary(x: Tensor, cos: Tensor, sin: Tensor, inverse: bool, path: str) -> Tensor:
    return _rotate(x, cos, sin, inverse, path)


def _fake_rotary(x: Tensor, cos: Tensor, sin: Tensor, inverse: bool, path: str) -> Tensor:
    as_it_lies = path == "triton" and x.stride(-1) == 1
    return empty_like(x) if as_it_lies else x.new_empty(x.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, cos, sin, ctx.inverse, ctx.path = inputs
    ctx.save_for_backward(cos, sin)


def _gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    return _ROTARY(grad_y, *ctx.saved_tensors, not ctx.inverse, ctx.path), *(None,) * 4


_ROTARY = operator(_rotary, _fake_rotary, _save, _gradients)
