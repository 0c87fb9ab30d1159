"""The residual stream after one more addition, and its RMSNorm, in one pass."""

from typing import Any

from torch import Tensor, bfloat16, compiler, dtype, float16, float32, is_grad_enabled

from model.ops._common import Backend, check_shape, check_tensors, chosen, runs_triton
from model.ops._native import runs_native
from model.ops._operator import operator
from model.ops.add_rmsnorm import reference, selfcheck
from model.ops.add_rmsnorm.torch import add, backward, forward, shared
from model.ops.gated_rmsnorm import native, torch

__all__ = ["add", "add_rmsnorm"]

NORMS = {"torch": torch, "native": native}
"""Of the paths that are not Triton's."""

LARGEST_ROW = 16384
"""Channels that the registers of a kernel's program hold."""


def add_rmsnorm(
    residual: Tensor,
    mixed: Tensor,
    weight: Tensor,
    *,
    eps: float = 1e-5,
    multiplier: float = 1.0,
    out_dtype: dtype | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """residual + multiplier mixed, and its RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467).

    Args:
        residual: (..., d).
        mixed: (..., d), in any dtype.
        weight: (d,).
        eps: added to the mean square.
        multiplier: of what is added.
        out_dtype: of the norm, the residual's if None.
        backend: "triton" (on a GPU, in fp32, bf16 or fp16), "native" (the norm in C, on a CPU, likewise), "torch",
            "reference" or "auto": the fastest that takes these inputs, or what the environment's MAMBA2_BACKEND says.

    Returns:
        The sum (..., d) in the residual's dtype, and its norm; computed in fp32 (fp64 for an fp64 residual).

    Raises:
        ValueError: shapes that do not fit together, tensors on several devices, a residual of integers, or a backend
            that is unknown or does not take these inputs.
    """
    check_shape("mixed", mixed, tuple(residual.shape))
    check_shape("weight", weight, tuple(residual.shape[-1:]))
    check_tensors(residual=residual, mixed=mixed, weight=weight)
    out_dtype = residual.dtype if out_dtype is None else out_dtype
    inputs = (residual, mixed, weight)
    path = chosen(
        backend,
        triton=lambda: _triton_takes(*inputs, multiplier, out_dtype, check=backend != "triton"),
        native=lambda: runs_native(residual) and native.works(),
    )
    if path == "reference":
        total, y = reference.add_rmsnorm(*inputs, eps, multiplier)
        return total.to(residual.dtype), y.to(out_dtype)
    options = (eps, multiplier, out_dtype)
    if path != "native" and not is_grad_enabled() and not compiler.is_compiling():
        return _forward(path, *inputs, *options)  # few positions feel a custom op call; C wants real tensors
    return _ADD_RMSNORM(*inputs, *options, path)


def _triton_takes(
    residual: Tensor, mixed: Tensor, weight: Tensor, multiplier: float, out_dtype: dtype, check: bool
) -> bool:
    """Whether there is a kernel for these inputs; with `check`, one found to work."""
    dtypes, d = (residual.dtype, mixed.dtype, weight.dtype, out_dtype), residual.shape[-1]
    known = {float32, bfloat16, float16}.issuperset(dtypes)
    if not known or d > LARGEST_ROW or residual.numel() == 0 or not runs_triton(residual):
        return False
    return not check or (residual.is_cuda and selfcheck.passes(str(residual.device), dtypes, d, multiplier != 1))


def _forward(path: str, *inputs: Any) -> tuple[Tensor, Tensor]:
    return _triton().forward(*inputs) if path == "triton" else forward(*inputs, norm=NORMS[path])


def _triton() -> Any:
    """The kernels; only a machine with a GPU needs Triton."""
    from model.ops.add_rmsnorm import triton

    return triton


def _add_rmsnorm(
    residual: Tensor, mixed: Tensor, weight: Tensor, eps: float, multiplier: float, out_dtype: dtype, path: str
) -> tuple[Tensor, Tensor]:
    return _forward(path, residual, mixed, weight, eps, multiplier, out_dtype)


def _fake_add_rmsnorm(
    residual: Tensor, mixed: Tensor, weight: Tensor, eps: float, multiplier: float, out_dtype: dtype, path: str
) -> tuple[Tensor, Tensor]:
    return residual.new_empty(residual.shape), residual.new_empty(residual.shape, dtype=out_dtype)


def _add_rmsnorm_backward(
    grad_total: Tensor | None,
    grad_y: Tensor,
    total: Tensor,
    weight: Tensor,
    eps: float,
    multiplier: float,
    mixed_dtype: dtype,
    path: str,
) -> tuple[Tensor, Tensor, Tensor]:
    options = (eps, multiplier, mixed_dtype)
    if path == "triton":
        return _triton().backward(grad_total, grad_y, total, weight, *options)
    return backward(grad_total, grad_y.contiguous(), total, weight, *options, norm=NORMS[path])


def _fake_add_rmsnorm_backward(
    grad_total: Tensor | None,
    grad_y: Tensor,
    total: Tensor,
    weight: Tensor,
    eps: float,
    multiplier: float,
    mixed_dtype: dtype,
    path: str,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (0,) if shared(total.dtype, mixed_dtype, multiplier) else total.shape
    return total.new_empty(total.shape), total.new_empty(shape, dtype=mixed_dtype), weight.new_empty(weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, mixed, weight, eps, multiplier, _, path = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], weight)  # the sum, which the next layer keeps anyway
    ctx.multiplier, ctx.mixed_dtype = multiplier, mixed.dtype
    ctx.options = (eps, multiplier, mixed.dtype, path)


def _gradients(ctx: Any, grad_total: Tensor | None, grad_y: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_y is None:  # the sum alone was used
        d_mixed = None if grad_total is None else (grad_total * ctx.multiplier).to(ctx.mixed_dtype)
        return grad_total, d_mixed, *(None,) * 5
    d_residual, d_mixed, d_weight = _ADD_RMSNORM_BACKWARD(grad_total, grad_y, *ctx.saved_tensors, *ctx.options)
    if shared(d_residual.dtype, ctx.mixed_dtype, ctx.multiplier):
        d_mixed = d_residual
    return d_residual, d_mixed, d_weight, *(None,) * 4


_ADD_RMSNORM = operator(_add_rmsnorm, _fake_add_rmsnorm, _save, _gradients)
_ADD_RMSNORM_BACKWARD = operator(_add_rmsnorm_backward, _fake_add_rmsnorm_backward)
