"""RMSNorm per group of channels, with an optional SiLU gate before or after it."""

from typing import Any

from torch import Tensor, bfloat16, compiler, dtype, float16, float32, is_grad_enabled

from model.ops._common import Backend, check_shape, check_tensors, chosen, runs_triton
from model.ops._native import runs_native
from model.ops._operator import operator
from model.ops.gated_rmsnorm import native, reference, selfcheck, torch

__all__ = ["gated_rmsnorm"]

LARGEST_GROUP = 16384
"""Channels that the registers of a kernel's program hold."""


def gated_rmsnorm(
    x: Tensor,
    weight: Tensor,
    *,
    gate: Tensor | None = None,
    eps: float = 1e-5,
    group_size: int | None = None,
    norm_before_gate: bool = False,
    out_dtype: dtype | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467), gated as in Mamba2.

    RMSNorm(x silu(gate)) weight, or RMSNorm(x) weight silu(gate) with `norm_before_gate`; each consecutive
    `group_size` channels are normalised on their own.

    Args:
        x: (..., d).
        weight: (d,).
        gate: (..., d), no gate if None.
        eps: added to the mean square.
        group_size: channels per group, all d if None.
        norm_before_gate: order of the two.
        out_dtype: of the result, x's if None.
        backend: "triton" (on a GPU, in fp32, bf16 or fp16), "native" (C, on a CPU, likewise), "torch", "reference" or
            "auto": the fastest that takes these inputs, or what the environment's MAMBA2_BACKEND says.

    Returns:
        (..., d); computed in fp32 (fp64 for fp64 x).

    Raises:
        ValueError: shapes that do not fit together, tensors on several devices, x of integers, or a backend that is
            unknown or does not take these inputs.
    """
    d = x.shape[-1] if x.dim() else 0
    group_size = d if group_size is None else group_size
    out_dtype = x.dtype if out_dtype is None else out_dtype
    check_shape("weight", weight, (d,))
    if gate is not None:
        check_shape("gate", gate, tuple(x.shape))
    check_tensors(x=x, weight=weight, gate=gate)
    if group_size < 1 or d % group_size:
        raise ValueError(f"{d} channels do not divide into groups of {group_size}: choose a divisor")
    options = (eps, group_size, norm_before_gate, out_dtype)
    path = chosen(
        backend,
        triton=lambda: _triton_takes(x, weight, gate, *options[1:], check=backend != "triton"),
        native=lambda: runs_native(x) and native.works(),
    )
    if path == "reference":
        return reference.gated_rmsnorm(x, weight, gate, *options[:3]).to(out_dtype)
    if path != "native" and not is_grad_enabled() and not compiler.is_compiling():
        return _forward(path, x, weight, gate, *options)  # a decode step feels a custom op call; C wants real tensors
    return _GATED_RMSNORM(x, weight, gate, *options, path)


def _triton_takes(
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    group_size: int,
    norm_before_gate: bool,
    out_dtype: dtype,
    check: bool,
) -> bool:
    """Whether there is a kernel for these inputs; with `check`, one found to work."""
    dtypes = (x.dtype, weight.dtype, None if gate is None else gate.dtype, out_dtype)
    known = {float32, bfloat16, float16, None}.issuperset(dtypes)
    if not known or group_size > LARGEST_GROUP or x.numel() == 0 or not runs_triton(x):
        return False
    return not check or (x.is_cuda and selfcheck.passes(str(x.device), dtypes, group_size, norm_before_gate))


def _forward(path: str, *inputs: Any) -> Tensor:
    return _kernels(path).forward(*inputs)


def _kernels(path: str) -> Any:
    """The module of a path; only a machine with a GPU needs Triton."""
    if path != "triton":
        return native if path == "native" else torch
    from model.ops.gated_rmsnorm import triton

    return triton


def _gated_rmsnorm(
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
    out_dtype: dtype,
    path: str,
) -> Tensor:
    return _forward(path, x, weight, gate, eps, group_size, norm_before_gate, out_dtype)


def _fake_gated_rmsnorm(
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
    out_dtype: dtype,
    path: str,
) -> Tensor:
    return x.new_empty(x.shape, dtype=out_dtype)


def _gated_rmsnorm_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
    path: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return _kernels(path).backward(grad_y, x, weight, gate, eps, group_size, norm_before_gate)


def _fake_gated_rmsnorm_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
    path: str,
) -> tuple[Tensor, Tensor, Tensor]:
    d_gate = x.new_empty(0) if gate is None else gate.new_empty(gate.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), d_gate


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, gate, eps, group_size, norm_before_gate, _, path = inputs
    ctx.options = (eps, group_size, norm_before_gate, path)
    ctx.save_for_backward(x, weight, gate)


def _gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: checkpointing makes them anew each time, or refuses
    dx, d_weight, d_gate = _GATED_RMSNORM_BACKWARD(grad_y, *saved, *ctx.options)
    return dx, d_weight, None if saved[2] is None else d_gate, None, None, None, None, None


_GATED_RMSNORM = operator(_gated_rmsnorm, _fake_gated_rmsnorm, _save, _gradients)
_GATED_RMSNORM_BACKWARD = operator(_gated_rmsnorm_backward, _fake_gated_rmsnorm_backward)
