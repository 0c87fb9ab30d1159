"""The SSD in chunks of matrix products, forward and backward, in plain torch.

The structured state-space duality of Mamba2 (Dao and Gu 2024, arXiv 2405.21060, section 6): inside a chunk the
sequence map is a masked matrix product, between chunks a recurrence over their states. B and C are never
expanded to heads, the chunk-by-chunk decay matrices live for one head at a time (they stay in the cache), and
the backward recomputes them from the inputs and the states at the chunk starts.

Shapes: b batch, c chunks, l positions of a chunk, g groups, r heads of a group, h = g r heads, p headdim,
n dstate. Large tensors are (b c, l, g, r p) so that each group is one strided batch of matrices.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops._common import compute_dtype, full_precision

SMALLEST = -1000.0
"""Of dt A: e^-1000 is zero in fp64, too, and sums of larger ones would lose the small terms beside them."""

CPU_CHUNK = 64
"""Chunk length used on a CPU, where longer ones fall out of the cache. Results do not depend on it."""


def chunk_length(device: torch.device, chunk_size: int, seqlen: int) -> int:
    """Positions per chunk that this backend works with."""
    longest = min(chunk_size, CPU_CHUNK) if device.type == "cpu" else chunk_size
    return min(longest, seqlen)


def _to_chunks(tensor: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """(b, seqlen, ...) -> (b c, l, ...), zeros after the end of the sequence."""
    batch, seqlen = tensor.shape[:2]
    padding = -seqlen % length
    tensor = tensor.to(dtype)
    if padding:
        tensor = F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, padding))
    return tensor.reshape(batch * ((seqlen + padding) // length), length, *tensor.shape[2:])


def _from_chunks(tensor: Tensor, like: Tensor) -> Tensor:
    """(b c, l, ...) -> shape and dtype of `like` (b, seqlen, ...), the padding dropped."""
    batch, seqlen = like.shape[:2]
    tensor = tensor.reshape(batch, -1, *like.shape[2:])[:, :seqlen]
    return tensor.to(like.dtype).contiguous()


@dataclass
class _Decays:
    """Decay factors of every chunk; a document boundary in between makes a factor zero."""

    cumulative: Tensor  # (h, b c, l): sum of dt A from the chunk start through a position, fp64
    from_start: Tensor  # (b c, l, h, 1): of the state at the chunk start, at a position
    to_end: Tensor  # (b c, l, h, 1): of a position's update, at the chunk end
    across: Tensor  # (b, c, h, 1, 1): of the state at the chunk start, at the chunk end
    hidden: Tensor  # (l, l) or (b c, l, l) bool: the query row does not see the key column

    def between(self, head: int) -> Tensor:
        """(b c, l, l): decay of a key column's update at a query row, zero where hidden."""
        cumulative = self.cumulative[head]
        exponent = (cumulative.unsqueeze(2) - cumulative.unsqueeze(1)).to(self.to_end.dtype)
        return exponent.masked_fill_(self.hidden, -math.inf).exp_()


def _triangle(length: int, device: torch.device) -> Tensor:
    """Ones (l, l) fp64 to cut running sums from: as products, since a GPU's cumsum is not deterministic."""
    return torch.ones(length, length, dtype=torch.float64, device=device)


def _decays(dt: Tensor, A: Tensor, seq_idx: Tensor | None, batch: int) -> _Decays:
    """Decays from dt (b c, l, h) and A (h,), with the documents of seq_idx (b, seqlen) kept apart.

    The sums are fp64: in fp32 the difference of two long sums would lose the short one between them.
    """
    length, nheads = dt.shape[1:]
    cumulative = _triangle(length, dt.device).tril() @ (dt.double() * A).clamp_(min=SMALLEST)
    total = cumulative[:, -1:]
    factors = (cumulative.exp(), (total - cumulative).exp(), total[:, 0].exp())
    from_start, to_end, across = (factor.to(dt.dtype) for factor in factors)
    hidden = torch.ones(length, length, dtype=torch.bool, device=dt.device).triu_(1)
    if seq_idx is not None:
        seq_idx = F.pad(seq_idx[:, None].double(), (0, -seq_idx.shape[1] % length), mode="replicate")
        documents = seq_idx.reshape(batch, -1, length)
        last = documents[:, :, -1:]
        before = torch.cat([documents[:, :1, :1], last[:, :-1]], dim=1)
        from_start = from_start * (documents == before).reshape(-1, length, 1)
        to_end = to_end * (documents == last).reshape(-1, length, 1)
        across = across * (last == before).reshape(-1, 1)
        documents = documents.reshape(-1, length)
        hidden = hidden | (documents.unsqueeze(2) != documents.unsqueeze(1))
    return _Decays(
        cumulative=cumulative.permute(2, 0, 1).contiguous(),
        from_start=from_start.unsqueeze(-1),
        to_end=to_end.unsqueeze(-1),
        across=across.reshape(batch, -1, nheads, 1, 1),
        hidden=hidden,
    )


def step_sizes(
    dt: Tensor, dt_bias: Tensor | None, dt_softplus: bool, dt_limit: tuple[float, float], dtype: torch.dtype
) -> Tensor:
    """clamp(softplus(dt + dt_bias)), (b, seqlen, h)."""
    dt = dt.to(dtype)
    if dt_bias is not None:
        dt = dt + dt_bias.to(dtype)
    if dt_softplus:
        dt = F.softplus(dt)
    return dt.clamp(*dt_limit)


def step_sizes_backward(
    grad: Tensor, dt: Tensor, dt_bias: Tensor | None, dt_softplus: bool, dt_limit: tuple[float, float]
) -> Tensor:
    """Gradient of the raw dt from the gradient of the step sizes."""
    raw = dt.to(grad.dtype)
    if dt_bias is not None:
        raw = raw + dt_bias.to(grad.dtype)
    size = F.softplus(raw) if dt_softplus else raw
    grad = grad * ((size >= dt_limit[0]) & (size <= dt_limit[1]))
    return grad * torch.sigmoid(raw) if dt_softplus else grad


def _read_states(states: Tensor, maps: Tensor, out: Tensor) -> None:
    """out (b c, l, g, r p) = states (b c, g, r p, n) read with C, or with B, (b c, l, g, n)."""
    for g in range(maps.shape[2]):
        torch.bmm(maps[:, :, g], states[:, g].transpose(1, 2), out=out[:, :, g])


def forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    dt_softplus: bool,
    dt_limit: tuple[float, float],
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y (b, seqlen, h, p), the final state (b, h, p, n) and the chunk-start states (b, c, h, p, n).

    All three are fp32, or fp64 for fp64 inputs.
    """
    with full_precision(x):
        dtype = compute_dtype(x)
        batch, seqlen, nheads, headdim = x.shape
        ngroups, dstate = B.shape[2:]
        length = chunk_length(x.device, chunk_size, seqlen)
        step = step_sizes(dt, dt_bias, dt_softplus, dt_limit, dtype)
        x_c, B_c, C_c, dt_c = (_to_chunks(t, length, dtype) for t in (x, B, C, step))
        decays = _decays(dt_c, A.to(dtype), seq_idx, batch)
        grouped = (x_c.shape[0], length, ngroups, -1)

        update = (x_c * dt_c.unsqueeze(-1)).contiguous()  # products keep an order of x in memory that is not this one
        weighted = (update * decays.to_end).view(grouped)
        local = x_c.new_empty(x_c.shape[0], ngroups, nheads // ngroups * headdim, dstate)
        for g in range(ngroups):
            torch.bmm(weighted[:, :, g].transpose(1, 2), B_c[:, :, g], out=local[:, g])
        del weighted

        local = local.view(batch, -1, nheads, headdim, dstate)
        states = torch.empty_like(local)
        state = local.new_zeros(local[:, 0].shape) if initial_state is None else initial_state.to(dtype)
        for c in range(local.shape[1]):
            states[:, c] = state
            state = torch.addcmul(local[:, c], decays.across[:, c], state)
        del local

        y = torch.empty_like(x_c, memory_format=torch.contiguous_format)
        _read_states(states.view(x_c.shape[0], ngroups, -1, dstate), C_c, out=y.view(grouped))
        y.mul_(decays.from_start)
        if D is not None:
            y.addcmul_(x_c, D.to(dtype).unsqueeze(-1))
        for g in range(ngroups):
            scores = torch.bmm(C_c[:, :, g], B_c[:, :, g].transpose(1, 2))
            for h in range(g * nheads // ngroups, (g + 1) * nheads // ngroups):
                y[:, :, h].baddbmm_(decays.between(h).mul_(scores), update[:, :, h])
        y = y.view(batch, -1, nheads, headdim)[:, :seqlen].contiguous()
        return y, state, states


def backward(
    grad_y: Tensor | None,
    grad_final_state: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    seq_idx: Tensor | None,
    states: Tensor,
    dt_softplus: bool,
    dt_limit: tuple[float, float],
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B, C, D, dt_bias and initial_state.

    Every decay is exp(cumulative_i - cumulative_j) of two positions (or the chunk start) and scales one
    product, so that product's share of the loss is added to the gradient of `cumulative` at i and taken off
    at j. Where i is j the factor is 1 and has no gradient: leaving those out keeps fp32 exact under strong
    decay, where all other shares are small.
    """
    with full_precision(x):
        dtype = compute_dtype(x)
        batch, seqlen, nheads, _ = x.shape
        ngroups, dstate = B.shape[2:]
        length = chunk_length(x.device, chunk_size, seqlen)
        step = step_sizes(dt, dt_bias, dt_softplus, dt_limit, dtype)
        x_c, B_c, C_c, dt_c = (_to_chunks(t, length, dtype) for t in (x, B, C, step))
        dy = x_c.new_zeros(x_c.shape) if grad_y is None else _to_chunks(grad_y, length, dtype).contiguous()
        decays = _decays(dt_c, A.to(dtype), seq_idx, batch)
        nchunks = x_c.shape[0]
        grouped, by_group = (nchunks, length, ngroups, -1), (nchunks, ngroups, -1, dstate)

        # What the outputs ask of C, of the state at each chunk start and of its decay.
        dB, dC = torch.empty_like(B_c), torch.empty_like(C_c)
        d_state = torch.empty_like(states)
        weighted = (dy * decays.from_start).view(grouped)
        for g in range(ngroups):
            torch.bmm(weighted[:, :, g], states.view(by_group)[:, g], out=dC[:, :, g])
            torch.bmm(weighted[:, :, g].transpose(1, 2), C_c[:, :, g], out=d_state.view(by_group)[:, g])
        d_update = torch.empty_like(dy)
        _read_states(states.view(by_group), C_c, out=d_update.view(grouped))
        d_cumulative = d_update.mul_(weighted.view_as(dy)).sum(-1).double()  # so that what cancels does

        # The recurrence backwards: d_state becomes the gradient of the state at each chunk end.
        grad = torch.zeros_like(states[:, 0]) if grad_final_state is None else grad_final_state.to(dtype)
        for c in reversed(range(states.shape[1])):
            at_start = torch.addcmul(d_state[:, c], decays.across[:, c], grad)
            d_state[:, c] = grad
            grad = at_start
        d_across = (d_state * states).sum((-1, -2)).mul_(decays.across[..., 0, 0]).view(nchunks, nheads)

        # What the chunk-end states ask of B, of each update dt x and of its decay.
        update = x_c * dt_c.unsqueeze(-1)
        torch.mul(update, decays.to_end, out=weighted.view_as(update))
        for g in range(ngroups):
            torch.bmm(weighted[:, :, g], d_state.view(by_group)[:, g], out=dB[:, :, g])
        _read_states(d_state.view(by_group), B_c, out=d_update.view(grouped))
        d_update.mul_(decays.to_end)
        d_to_end = (d_update * update).sum(-1)[:, :-1].double()
        d_cumulative[:, :-1] -= d_to_end
        d_cumulative[:, -1] += d_to_end.sum(1) + d_across
        del weighted, d_state

        # Inside the chunks, one head's decay matrices at a time.
        for g in range(ngroups):
            scores = torch.bmm(C_c[:, :, g], B_c[:, :, g].transpose(1, 2))
            d_scores = torch.zeros_like(scores)
            for h in range(g * nheads // ngroups, (g + 1) * nheads // ngroups):
                decay = decays.between(h)
                d_weights = torch.bmm(dy[:, :, h], update[:, :, h].transpose(1, 2))
                d_scores.addcmul_(decay, d_weights)
                weights = decay.mul_(scores)
                d_update[:, :, h].baddbmm_(weights.transpose(1, 2), dy[:, :, h])
                shares = weights.mul_(d_weights)
                shares.diagonal(dim1=1, dim2=2).zero_()
                d_cumulative[:, :, h] += shares.sum(2, dtype=torch.float64) - shares.sum(1, dtype=torch.float64)
            dC[:, :, g].baddbmm_(d_scores, B_c[:, :, g])
            dB[:, :, g].baddbmm_(d_scores.transpose(1, 2), C_c[:, :, g])

        d_step = (d_update * x_c).sum(-1)
        dx = d_update.mul_(dt_c.unsqueeze(-1))
        dD = A.new_zeros(nheads)
        if D is not None:
            dD = (dy * x_c).sum((0, 1, 3)).to(D.dtype)
            dx.addcmul_(dy, D.to(dtype).unsqueeze(-1))
        d_exponent = (_triangle(length, x.device).triu() @ d_cumulative).to(dtype)
        d_exponent.masked_fill_(dt_c * A.to(dtype) < SMALLEST, 0.0)  # nothing is left of what it would change
        dA = (d_exponent * dt_c).sum((0, 1)).to(A.dtype)
        d_step.addcmul_(d_exponent, A.to(dtype))
        d_step = d_step.view(batch, -1, nheads)[:, :seqlen]
        ddt = step_sizes_backward(d_step, dt, dt_bias, dt_softplus, dt_limit)
        d_bias = ddt.sum((0, 1))
        if dt_bias is not None:
            d_bias = d_bias.to(dt_bias.dtype)
        return (
            _from_chunks(dx, x),
            ddt.to(dt.dtype).contiguous(),
            dA,
            _from_chunks(dB, B),
            _from_chunks(dC, C),
            dD,
            d_bias,
            grad.contiguous(),
        )
