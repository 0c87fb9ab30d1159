"""The cross-entropy's kernel."""

from model.ops.cross_entropy.torch import IGNORED
from model.ops.cross_entropy.triton import TILE, WARPS, loss_kernel
from tests.model.ops.ahead.compiling import Kernel

TYPES = {"logits": "*bf16", "targets": "*i64", "losses": "*fp32", "stride": "i32", "vocab": "i32"}
CONSTANTS = {"IGNORED": IGNORED, "TILE": TILE, "GRADIENTS": True}
KERNELS = [Kernel(loss_kernel, CONSTANTS, TYPES, options={"num_warps": WARPS}, divisible=("stride",))]
