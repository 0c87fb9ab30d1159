"""The rotation's kernel: heads of 128 channels, rotated whole or half."""

from model.ops.rotary.triton import WARPS, sizes
from model.ops.rotary.triton.kernels import rotary_kernel
from tests.model.ops.ahead.compiling import Kernel

STRIDES = tuple(f"{tensor}_{axis}" for tensor in "xy" for axis in ("batch", "head", "row"))
TYPES = {**dict.fromkeys(["seqlen", "heads", "angles_of_batch", *STRIDES], "i32"), "cos": "*fp32", "sin": "*fp32"}
KERNELS = [
    Kernel(
        rotary_kernel,
        {**sizes(32, 128, half), "INVERSE": True},
        TYPES,
        tensors=tensors,
        options={"num_warps": WARPS},
        divisible=("angles_of_batch", *STRIDES),
        label=f"{2 * half} {tensors.removeprefix('*')}",
    )
    for half in (32, 64)
    for tensors in ("*bf16", "*fp32")
]
