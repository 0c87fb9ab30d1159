"""The gated RMSNorm's kernels at sizes of the presets, and the largest that they take."""

from model.ops.gated_rmsnorm.triton import Plan, backward_kernel, forward_kernel
from tests.model.ops.ahead.compiling import NOTHING, Kernel

TYPES = {
    **dict.fromkeys(["x_stride", "gate_stride", "dy_stride"], "i32"),
    **dict.fromkeys(["rows", "groups", "tiles_of_program"], "i32"),
    **{"eps": "fp32", "d_weight": "*fp32"},
}
SPILLED = {5120: dict.fromkeys(NOTHING, 32), 16384: {80: 1_500, 90: 640, 100: 800}}
"""What the backward does today; the largest groups are no preset's."""

KERNELS = []
for group_size in (1024, 5120, 16384):
    options = dict(Plan(16384, group_size, group_size).options)
    launch = {"num_warps": options.pop("num_warps")}
    constants = {**options, "GATED": True, "NORM_FIRST": False}
    KERNELS += [
        Kernel(forward_kernel, constants, TYPES, "*bf16", launch, label=str(group_size)),
        Kernel(backward_kernel, constants, TYPES, "*bf16", launch, SPILLED.get(group_size, NOTHING), str(group_size)),
    ]
