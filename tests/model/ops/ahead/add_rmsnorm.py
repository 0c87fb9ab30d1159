"""The kernels of sum and RMSNorm at sizes of the presets, and the largest that they take."""

from model.ops.add_rmsnorm.triton import backward_kernel, forward_kernel
from model.ops.gated_rmsnorm.triton import Plan
from tests.model.ops.ahead.compiling import NOTHING, Kernel

TYPES = {
    **dict.fromkeys(["residual_stride", "mixed_stride", "through_stride", "dy_stride", "total_stride"], "i32"),
    **dict.fromkeys(["rows", "tiles_of_program"], "i32"),
    **dict.fromkeys(["eps", "multiplier"], "fp32"),
    **dict.fromkeys(["mixed", "weight", "y", "dy", "d_mixed"], "*bf16"),
}
"""The residual stream in fp32, all else in bf16."""

SPILLED = {16384: dict.fromkeys(NOTHING, 160)}
"""What the backward does today with rows that no preset has; elsewhere nothing."""

KERNELS = []
for d in (768, 4096, 16384):
    options = dict(Plan(16384, d, d).options)
    constants = {**options, "THROUGH": True, "SHARED": False}
    common = {"options": {"num_warps": options.pop("num_warps")}, "label": str(d)}
    common["divisible"] = ("residual_stride", "mixed_stride", "through_stride", "dy_stride", "total_stride")
    KERNELS += [
        Kernel(forward_kernel, constants, TYPES, **common),
        Kernel(backward_kernel, constants, TYPES, spilled=SPILLED.get(d, NOTHING), **common),
    ]
