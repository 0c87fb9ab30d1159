"""The gated RMSNorm's kernels at sizes of the presets, and the largest that they take."""

from model.ops.gated_rmsnorm.triton import OF_THREAD_BACKWARD, TILE_BACKWARD, Plan, backward_kernel, forward_kernel
from tests.model.ops.ahead.compiling import NOTHING, Kernel

TYPES = {
    **dict.fromkeys(["x_stride", "gate_stride", "dy_stride"], "i32"),
    **dict.fromkeys(["rows", "groups", "tiles_of_program"], "i32"),
    **{"eps": "fp32", "d_weight": "*fp32"},
}
SPILLED = {16384: {80: 600, 90: 640, 100: 900}}
"""What the backward does today; the largest groups are no preset's."""

KERNELS = []
for group_size in (1024, 1536, 5120, 16384):
    for kernel, sizes in ((forward_kernel, ()), (backward_kernel, (TILE_BACKWARD, OF_THREAD_BACKWARD))):
        options = dict(Plan(16384, group_size, group_size, *sizes).options)
        constants = {**options, "GATED": True, "NORM_FIRST": False}
        warps = {"num_warps": options.pop("num_warps")}
        spilled = SPILLED.get(group_size, NOTHING) if kernel is backward_kernel else NOTHING
        divisible = ("x_stride", "gate_stride", "dy_stride")
        arguments = {"tensors": "*bf16", "options": warps, "label": str(group_size), "divisible": divisible}
        KERNELS.append(Kernel(kernel, constants, TYPES, spilled=spilled, **arguments))
