"""The gated RMSNorm's kernels at sizes of the presets, and the largest that they take."""

from model.ops.gated_rmsnorm.triton import Plan, backward_kernel, forward_kernel
from tests.model.ops.ahead.compiling import NOTHING, Kernel

TYPES = {
    **dict.fromkeys(["x_stride", "gate_stride", "dy_stride"], "i32"),
    **dict.fromkeys(["rows", "groups", "tiles_of_program"], "i32"),
    **{"eps": "fp32", "d_weight": "*fp32"},
}
SPILLED = {5120: dict.fromkeys(NOTHING, 32), 16384: {80: 600, 90: 640, 100: 900}}
"""What the backward does today; the largest groups are no preset's."""

KERNELS = []
for group_size in (1024, 5120, 16384):
    options = dict(Plan(16384, group_size, group_size).options)
    constants = {**options, "GATED": True, "NORM_FIRST": False}
    common = {"tensors": "*bf16", "options": {"num_warps": options.pop("num_warps")}, "label": str(group_size)}
    common["divisible"] = ("x_stride", "gate_stride", "dy_stride")
    KERNELS += [
        Kernel(forward_kernel, constants, TYPES, **common),
        Kernel(backward_kernel, constants, TYPES, spilled=SPILLED.get(group_size, NOTHING), **common),
    ]
