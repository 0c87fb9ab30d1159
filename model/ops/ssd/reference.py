"""The SSD as the recurrence that defines it: one position at a time, fp64, plain autograd."""

import torch
import torch.nn.functional as F
from torch import Tensor


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    dt_limit: tuple[float, float],
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return y (batch, seqlen, nheads, headdim) and the final state (batch, nheads, headdim, dstate), fp64.

    state_t = exp(dt_t A) state_{t-1} + dt_t x_t B_t^T  and  y_t = state_t C_t + D x_t.
    """
    batch, seqlen, nheads, headdim = x.shape
    heads_per_group = nheads // B.shape[2]
    x, dt, A = x.double(), dt.double(), A.double()
    B = B.double().repeat_interleave(heads_per_group, dim=2)
    C = C.double().repeat_interleave(heads_per_group, dim=2)
    if dt_bias is not None:
        dt = dt + dt_bias.double()
    if dt_softplus:
        dt = F.softplus(dt)
    dt = dt.clamp(*dt_limit)

    zeros = x.new_zeros(batch, nheads, headdim, B.shape[-1])
    state = zeros if initial_state is None else initial_state.double()
    outputs = []
    for t in range(seqlen):
        if seq_idx is not None and t > 0:
            same_document = seq_idx[:, t] == seq_idx[:, t - 1]
            state = state * same_document[:, None, None, None]
        decay = torch.exp(dt[:, t] * A)
        update = torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], B[:, t])
        state = decay[:, :, None, None] * state + update
        outputs.append(torch.einsum("bhpn,bhn->bhp", state, C[:, t]))
    y = torch.stack(outputs, dim=1)
    if D is not None:
        y = y + D.double()[:, None] * x
    return y, state
