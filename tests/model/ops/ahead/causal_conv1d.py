"""The convolution's kernels with everything there is to do."""

from model.ops.causal_conv1d.triton import BACKWARD, FORWARD
from model.ops.causal_conv1d.triton.kernels import backward_kernel, forward_kernel
from tests.model.ops.ahead.compiling import Kernel

EVERYTHING = dict.fromkeys(["SILU", "BIAS", "START", "DOCUMENTS"], True)
TYPES = {**dict.fromkeys(["seqlen", "channels", "rows"], "i32"), "seq_idx": "*i32", "parts": "*fp32"}
KERNELS = [
    Kernel(
        kernel,
        {"W": 4, "C": tile.channels, "R": tile.block} | EVERYTHING,
        TYPES,
        tensors=tensors,
        options={"num_warps": tile.channels // tile.per_warp},
        divisible=("seqlen", "channels"),
        label=tensors.removeprefix("*"),
    )
    for kernel, tile in ((forward_kernel, FORWARD), (backward_kernel, BACKWARD))
    for tensors in ("*bf16", "*fp32")
]
