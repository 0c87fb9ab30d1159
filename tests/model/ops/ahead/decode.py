"""The decoding kernels at the sizes of nemotron-h-8b, in bf16."""

from typing import Any

import torch

from model.config import HybridConfig
from model.decode.triton.attention import BLOCK, append_kernel, attend_kernel, merge_kernel
from model.decode.triton.conv import BLOCK as CHANNELS
from model.decode.triton.conv import conv_kernel
from model.decode.triton.linear import gate_kernel, planned, products_kernel, sums_kernel
from model.decode.triton.norm import add_norm_kernel, gated_norm_kernel, warps
from model.ops.ssd.triton.step import step_kernel
from tests.model.ops.ahead.compiling import NAN_STAYS, Kernel

CONFIG = HybridConfig.preset("nemotron-h-8b")
MAPS = CONFIG.n_groups * CONFIG.d_state
CONV = CONFIG.d_inner + 2 * MAPS
IN_PROJ = (CONFIG.d_inner, CONFIG.d_inner, MAPS, MAPS, CONFIG.nheads)
GROUP = CONFIG.d_inner // CONFIG.n_groups
HEADS = {"heads": CONFIG.n_heads, "kv_heads": CONFIG.n_kv_heads, "d": CONFIG.attention_head_dim, "D": 128}

INTEGERS = ("rows", "x_stride", "dt_stride", "B_stride", "C_stride", "gate_stride", "nheads", "ngroups", "capacity")
TYPES = {
    **dict.fromkeys((*INTEGERS, "nshares"), "i32"),
    **dict.fromkeys(("scale", "multiplier", "eps", "dt_min", "dt_max"), "fp32"),
    **dict.fromkeys(("position", "starts"), "*i64"),
    **dict.fromkeys(("A", "D", "dt_bias", "cos", "sin", "sums", "highest", "weights"), "*fp32"),
}


def linear(rows: int, outs: tuple[int, ...], k: int, dtype: torch.dtype = torch.bfloat16, **constants: Any) -> Kernel:
    """As `model.decode.triton.linear.Linear` launches it."""
    plan = planned(rows, outs, k, dtype)
    kernel = products_kernel if "M" in plan.constants else sums_kernel
    fixed = plan.constants | {"BIAS": True, "ACTIVATION": None} | constants
    tensors = "*fp32" if dtype is torch.float32 else "*bf16"
    return Kernel(kernel, fixed, TYPES, tensors, plan.options, label=f"{rows} x {sum(outs)} x {k}")


KERNELS = [
    *(linear(rows, IN_PROJ, CONFIG.d_model) for rows in (1, 2, 16)),
    linear(1, (CONFIG.d_model,), CONFIG.d_ff, ACTIVATION="relu2"),
    linear(64, (CONFIG.d_model,), CONFIG.d_ff, ACTIVATION="gelu"),
    *(linear(rows, (8, 8, 1, 1, 3), 100) for rows in (1, 5)),
    Kernel(gate_kernel, {"d": CONFIG.d_ff, "BLOCK": 256}, TYPES, "*bf16"),
    Kernel(
        add_norm_kernel,
        {"d": 4096, "BLOCK": 4096, "ADD": True},
        TYPES | {"residual": "*fp32"},
        "*bf16",
        {"num_warps": warps(4096)},
    ),
    Kernel(
        gated_norm_kernel,
        {"d": CONFIG.d_inner, "GROUP": GROUP, "BLOCK": GROUP, "NORM_FIRST": False},
        TYPES,
        "*bf16",
        {"num_warps": warps(GROUP)},
    ),
    Kernel(
        conv_kernel,
        {"channels": CONV, "WIDTH": CONFIG.d_conv, "BLOCK": CHANNELS, "BIAS": True},
        TYPES,
        "*bf16",
        {"num_warps": 2},
    ),
    Kernel(
        step_kernel,
        {"headdim": 64, "dstate": 128, "P": 32, "N": 128, "SOFTPLUS": True, "SKIP": True, "BIAS": True},
        TYPES | {"state": "*fp32"},
        "*bf16",
        {"num_warps": 4},
        instructions=NAN_STAYS,
    ),
    Kernel(append_kernel, HEADS | {"HALF": 64, "H": 64}, TYPES, "*bf16", {"num_warps": 1}),
    Kernel(
        attend_kernel,
        HEADS | {"Q": 16, "BLOCK": BLOCK, "PRECISION": "tf32"},
        TYPES,
        "*bf16",
        {"num_warps": 4, "num_stages": 2},
    ),
    Kernel(merge_kernel, HEADS | {"SHARES": 64}, TYPES, "*bf16", {"num_warps": 4}),
]
