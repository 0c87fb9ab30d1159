"""The gated RMSNorm in few passes over memory; the backward recomputes the normalised values."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops._common import compute_dtype, full_precision


def _inverse_rms(x: Tensor, eps: float, group_size: int) -> tuple[Tensor, Tensor]:
    """x as (rows, groups, group_size) and 1 / its root mean square per group, (rows, groups, 1)."""
    groups = x.reshape(-1, x.shape[-1] // group_size, group_size)
    norm = torch.linalg.vector_norm(groups, dim=-1, keepdim=True)
    return groups, norm.square_().div_(group_size).add_(eps).rsqrt_()


def forward(
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
    out_dtype: torch.dtype,
) -> Tensor:
    """Return (..., d) in `out_dtype`."""
    with full_precision(x):
        dtype = compute_dtype(x)
        x_f, weight_f = x.to(dtype), weight.to(dtype)
        opening = None if gate is None else F.silu(gate.to(dtype))
        value = x_f if opening is None or norm_before_gate else x_f * opening
        groups = value.reshape(-1, group_size)
        y = F.rms_norm(groups, (group_size,), eps=eps).view(x.shape).mul_(weight_f)
        if opening is not None and norm_before_gate:
            y.mul_(opening)
        return y.to(out_dtype)


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and gate (empty without one)."""
    with full_precision(x):
        dtype = compute_dtype(x)
        x_f, weight_f, grad_y = x.to(dtype), weight.to(dtype), grad_y.contiguous().to(dtype)
        gate_f = None if gate is None else gate.to(dtype)
        opening = None if gate_f is None else F.silu(gate_f)
        d_gate = x.new_empty(0) if gate is None else gate.new_empty(0)
        value = x_f if opening is None or norm_before_gate else x_f * opening
        groups, inverse = _inverse_rms(value, eps, group_size)
        normed = (groups * inverse).view(x.shape)
        scaled = grad_y * normed
        if gate is not None and gate_f is not None and opening is not None and norm_before_gate:
            d_gate = torch.ops.aten.silu_backward(scaled * weight_f, gate_f).to(gate.dtype)
            grad_y = grad_y * opening
            scaled.mul_(opening)
        d_weight = scaled.view(-1, x.shape[-1]).sum(0)
        mean = scaled.mul_(weight_f).view_as(groups).mean(-1, keepdim=True)
        d_value = (grad_y * weight_f).view_as(groups)
        d_value = d_value.addcmul_(normed.view_as(groups), mean, value=-1).mul_(inverse).view(x.shape)
        if gate is not None and gate_f is not None and opening is not None and not norm_before_gate:
            d_gate = torch.ops.aten.silu_backward(d_value * x_f, gate_f).to(gate.dtype)
            d_value.mul_(opening)
        return d_value.to(x.dtype), d_weight.to(weight.dtype), d_gate
