"""Decoding in Triton: one position of a whole model in some 4 launches a layer, weights read once where they lie."""

import torch
from torch import Tensor, nn

from model.decode.triton.layers import KINDS, Model
from model.hybrid import Block, HybridLM
from model.layers.norm import RMSNorm
from model.ops._common import runs_triton

__all__ = ["Model", "takes"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

LARGEST_ROW = 16384
"""Channels that a norm's program holds in registers."""

LARGEST_STATE = 1024
"""Of a channel, and of an attention head's keys."""


def takes(model: HybridLM) -> bool:
    """Whether every layer is one that the kernels read as it lies in the model."""
    weight = model.embedding.weight
    if weight.dtype not in DTYPES or not runs_triton(weight) or type(model.embedding) is not nn.Embedding:
        return False
    config = model.config
    blocks = [block for block in model.layers if isinstance(block, Block)]
    if len(blocks) < len(model.layers) or any(type(block.mixer) not in KINDS for block in blocks):
        return False
    projections = (child for block in blocks for child in block.mixer.projections())  # type: ignore[operator]
    norms = (model.norm, *(block.norm for block in blocks))
    return (
        all(type(child) is nn.Linear for child in projections)
        and all(type(norm) is RMSNorm for norm in norms)
        and all(_lies_plainly(name, parameter, weight) for name, parameter in model.named_parameters())
        and config.d_model <= LARGEST_ROW
        and ("M" not in config.layers or config.d_inner // config.n_groups <= LARGEST_ROW)
        and ("M" not in config.layers or config.d_state <= LARGEST_STATE)
        and ("*" not in config.layers or config.attention_head_dim <= LARGEST_STATE)
    )


def _lies_plainly(name: str, tensor: Tensor, like: Tensor) -> bool:
    """Whether a kernel can read the tensor where it is."""
    dtype = torch.float32 if ".scan." in name else like.dtype
    plainly = type(tensor) in (Tensor, nn.Parameter) and tensor.is_contiguous()
    return plainly and tensor.dtype is dtype and tensor.device == like.device
