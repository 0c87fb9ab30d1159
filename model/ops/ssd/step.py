"""One position of the SSD, for decoding: no custom op, since a call of one costs more than the work."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops._common import Backend, check_tensors, chosen, full_precision, runs_triton
from model.ops.ssd import selfcheck

LARGEST = 1024
"""Of a channel's state, which a program of the kernel holds in registers."""


def ssd_step(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor,
    *,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Advance the scan by one position.

    Args:
        x: (batch, nheads, headdim).
        dt: (batch, nheads).
        A: (nheads,).
        B: (batch, ngroups, dstate).
        C: (batch, ngroups, dstate).
        state: (batch, nheads, headdim, dstate), fp32; overwritten with the new state, since a new tensor of its
            size at every step would cost more than the arithmetic.
        D, dt_bias, dt_softplus, dt_limit: as in `ssd`.
        backend: "triton" (on a GPU, in fp32, bf16 or fp16, without gradients), "torch" or "auto", as in `ssd`; there is
            no "reference" but this.

    Returns:
        y (batch, nheads, headdim) in x's dtype, and `state`.

    Raises:
        ValueError: shapes that do not fit together, tensors on several devices, x of integers, or a backend that is
            unknown or does not take these inputs.
    """
    inputs = (x, dt, A, B, C, state, D, dt_bias)
    fits = (
        x.dim() == B.dim() == 3
        and dt.shape == x.shape[:2]
        and A.shape == x.shape[1:2]
        and len(B) == len(x)
        and C.shape == B.shape
        and state.shape == (*x.shape, B.shape[2])
        and (D is None or D.shape == A.shape)
        and (dt_bias is None or dt_bias.shape == A.shape)
        and B.shape[1] > 0
        and x.shape[1] % B.shape[1] == 0
    )
    if not fits:
        names = ("x", "dt", "A", "B", "C", "state", "D", "dt_bias")
        shapes = {name: tuple(t.shape) for name, t in zip(names, inputs, strict=True) if t is not None}
        raise ValueError(f"shapes do not fit together: {shapes}")
    check_tensors(x=x, dt=dt, A=A, B=B, C=C, state=state, D=D, dt_bias=dt_bias)
    if chosen(backend, triton=lambda: _triton_takes(inputs, check=backend != "triton")) == "triton":
        return _triton().step(*_triton().readable(x, dt, B, C), A, state, D, dt_bias, dt_softplus, dt_limit), state
    with full_precision(x):
        dtype = state.dtype
        dt = dt.to(dtype) if dt_bias is None else dt.to(dtype) + dt_bias
        if dt_softplus:
            dt = F.softplus(dt)
        if dt_limit != (0.0, math.inf) or not dt_softplus:
            dt = dt.clamp(*dt_limit)
        x_now = x.to(dtype)
        groups = (B.shape[1], x.shape[1] // B.shape[1])
        update = (x_now * dt.unsqueeze(-1)).unflatten(1, groups).unsqueeze(-1)
        state.mul_((dt * A).exp_()[..., None, None])
        grouped = state.unflatten(1, groups).addcmul_(update, B.to(dtype)[:, :, None, None])
        if len(B) * B.shape[1] == 1:
            y = torch.mv(grouped.reshape(-1, B.shape[2]), C.to(dtype).reshape(-1)).view(x.shape)
        else:  # on a CPU a batched product of matrices and vectors takes them one by one, four times as long
            y = torch.linalg.vecdot(grouped, C.to(dtype)[:, :, None, None]).reshape(x.shape)
        if D is not None:
            y.addcmul_(x_now, D.unsqueeze(-1))
        return y.to(x.dtype), state


def _triton_takes(inputs: tuple[Tensor | None, ...], check: bool) -> bool:
    """Whether there is a kernel for these inputs; with `check`, one found to work."""
    tensors = [tensor for tensor in inputs if tensor is not None]
    x, state = tensors[0], tensors[5]
    known = {torch.float32, torch.bfloat16, torch.float16}.issuperset(tensor.dtype for tensor in tensors)
    if not known or not runs_triton(x) or not state.is_contiguous() or x.numel() == 0 or state.shape[-1] > LARGEST:
        return False
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    return not check or (x.is_cuda and selfcheck.step_passes(str(x.device), x.dtype, *state.shape[-2:]))


def _triton() -> Any:
    """The kernel; only a machine with a GPU needs Triton."""
    from model.ops.ssd.triton import step

    return step
