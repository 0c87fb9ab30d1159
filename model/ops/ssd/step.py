"""One position of the SSD, for decoding: no custom op, since a call of one costs more than the work."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops._common import full_precision


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

    Returns:
        y (batch, nheads, headdim) in x's dtype, and `state`.

    Raises:
        ValueError: shapes that do not fit together.
    """
    batch, nheads, headdim = x.shape
    ngroups, dstate = B.shape[1:]
    fits = (
        dt.shape == (batch, nheads)
        and A.shape == (nheads,)
        and B.shape == C.shape == (batch, ngroups, dstate)
        and state.shape == (batch, nheads, headdim, dstate)
        and (D is None or D.shape == A.shape)
        and (dt_bias is None or dt_bias.shape == A.shape)
        and nheads % ngroups == 0
    )
    if not fits:
        names, tensors = ("x", "dt", "A", "B", "C", "state", "D", "dt_bias"), (x, dt, A, B, C, state, D, dt_bias)
        shapes = {name: tuple(t.shape) for name, t in zip(names, tensors, strict=True) if t is not None}
        raise ValueError(f"shapes do not fit together: {shapes}")
    with full_precision(x):
        dtype = state.dtype
        dt = dt.to(dtype) if dt_bias is None else dt.to(dtype) + dt_bias
        if dt_softplus:
            dt = F.softplus(dt)
        if dt_limit != (0.0, math.inf) or not dt_softplus:
            dt = dt.clamp(*dt_limit)
        x_now = x.to(dtype)
        update = (x_now * dt.unsqueeze(-1)).view(batch, ngroups, -1, 1)
        state.mul_((dt * A).exp_().view(batch, nheads, 1, 1))
        grouped = state.view(batch, ngroups, -1, dstate).addcmul_(update, B.to(dtype).unsqueeze(2))
        if batch * ngroups == 1:
            y = torch.mv(grouped.view(-1, dstate), C.to(dtype).view(-1)).view(batch, nheads, headdim)
        else:  # on a CPU a batched product of matrices and vectors takes them one by one, four times as long
            y = torch.linalg.vecdot(grouped, C.to(dtype).unsqueeze(2)).view(batch, nheads, headdim)
        if D is not None:
            y.addcmul_(x_now, D.unsqueeze(-1))
        return y.to(x.dtype), state
