"""The causal depthwise convolution as PyTorch's conv1d, one document at a time, fp64, plain autograd."""

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, seq_idx: Tensor | None
) -> Tensor:
    """Return (batch, seqlen, channels) in fp64."""
    if seq_idx is not None:
        return torch.stack([_row_of_documents(*row, weight, bias, activation) for row in zip(x, seq_idx, strict=True)])
    channels, width = weight.shape
    padded = F.pad(x.double().transpose(1, 2), (width - 1, 0))
    y = F.conv1d(padded, weight.double().unsqueeze(1), None if bias is None else bias.double(), groups=channels)
    y = y.transpose(1, 2)
    return F.silu(y) if activation == "silu" else y


def _row_of_documents(
    x: Tensor, seq_idx: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None
) -> Tensor:
    lengths = torch.unique_consecutive(seq_idx, return_counts=True)[1].tolist()
    documents = [causal_conv1d(d.unsqueeze(0), weight, bias, activation, None) for d in x.split(lengths)]
    return torch.cat(documents, dim=1).squeeze(0)
