"""The causal depthwise convolution as one fused multiply-add per tap, in the (batch, seqlen, channels) layout."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops._common import compute_dtype, full_precision


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None) -> Tensor:
    """The convolution before its activation, (b, l, d)."""
    taps = weight.to(x.dtype).t().contiguous()
    y = x * taps[-1] if bias is None else torch.addcmul(bias.to(x.dtype), x, taps[-1])
    y = y.contiguous()  # as promised; products keep x's order in memory
    for shift in range(1, min(len(taps), x.shape[1])):
        y[:, shift:].addcmul_(_shifted(x, shift, seq_idx), taps[-1 - shift])
    return y


def _shifted(x: Tensor, shift: int, seq_idx: Tensor | None) -> Tensor:
    """x `shift` positions ago as seen by positions shift, shift + 1, ...; zero from another document."""
    earlier = x[:, :-shift]
    return earlier if seq_idx is None else earlier * _same_document(seq_idx, shift)


def _same_document(seq_idx: Tensor, shift: int) -> Tensor:
    return (seq_idx[:, shift:] == seq_idx[:, :-shift]).unsqueeze(-1)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None, activation: str | None) -> Tensor:
    """Return y (b, l, d) in x's dtype."""
    with full_precision(x):
        y = _convolve(x, weight, bias, seq_idx)
        return F.silu(y, inplace=True) if activation == "silu" else y


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; the pre-activation is recomputed."""
    with full_precision(x):
        if activation == "silu":
            grad_y = torch.ops.aten.silu_backward(grad_y, _convolve(x, weight, bias, seq_idx))
        taps = weight.to(x.dtype).t().contiguous()
        dx = grad_y * taps[-1]
        d_taps = torch.zeros_like(taps, dtype=compute_dtype(x))  # sums over all positions

        def over_positions(products: Tensor) -> Tensor:
            return products.sum((0, 1), dtype=d_taps.dtype)

        d_taps[-1] = over_positions(grad_y * x)
        for shift in range(1, min(len(taps), x.shape[1])):
            from_later = grad_y[:, shift:]
            if seq_idx is not None:
                from_later = from_later * _same_document(seq_idx, shift)
            dx[:, :-shift].addcmul_(from_later, taps[-1 - shift])
            d_taps[-1 - shift] = over_positions(from_later * x[:, :-shift])
        return dx, d_taps.t().to(weight.dtype).contiguous(), over_positions(grad_y).to(weight.dtype)
