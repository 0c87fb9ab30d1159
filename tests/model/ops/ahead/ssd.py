"""The SSD's kernels at the sizes of every preset."""

import torch

from model.ops.ssd.triton.decays import decays_kernel, step_gradients_kernel, totals_kernel
from model.ops.ssd.triton.gradients import gradients_kernel, sum_splits_kernel
from model.ops.ssd.triton.hopper.gradients.kernel import STAGES as STAGES_OF_GRADIENTS
from model.ops.ssd.triton.hopper.gradients.kernel import fused_gradients_kernel
from model.ops.ssd.triton.hopper.scan.kernel import STAGES as STAGES_OF_SCAN
from model.ops.ssd.triton.hopper.scan.kernel import fused_scan_kernel
from model.ops.ssd.triton.hopper.states.kernel import STAGES as STAGES_OF_STATES
from model.ops.ssd.triton.hopper.states.kernel import fused_parts_kernel, fused_states_kernel
from model.ops.ssd.triton.launches import HEADS, SUM_TILE, TOTAL_TILE
from model.ops.ssd.triton.plan import MORE_STAGES, Plan
from model.ops.ssd.triton.scan import scan_kernel
from model.ops.ssd.triton.states import parts_kernel, states_kernel
from tests.model.ops.ahead.compiling import NAN_STAYS, Kernel

DTYPE, HEADDIM, DSTATE = torch.bfloat16, 64, 128
PLAN = Plan(torch.empty(1, 4096, 32, HEADDIM, dtype=DTYPE), torch.empty(1, 4096, 1, DSTATE, dtype=DTYPE))

SPILLED = {80: 700, 90: 250, 100: 560}
SPILLED_BY_BOTH = {80: 2_200, 90: 310, 100: 360}
"""What they do today (docs/kernels.md), so that no change makes it worse: `gradients` is two programs in one."""

TYPES = {
    **dict.fromkeys(["x", "dy", "dt", "B", "C", "y", "dx", "ddt", "dB", "dC", "states", "d_states"], "*bf16"),
    **dict.fromkeys(
        ["seqlen", "nheads", "ngroups", "nsegments", "parts", "chunks_of_part", "nchunks", "nsplits", "first_chunk"],
        "i32",
    ),
    **dict.fromkeys(["all_segments", "chunks_of_start", "nstarts", "out_rows", "out_chunk"], "i32"),
    **dict.fromkeys(["split_rows", "all_rows", "first_row", "rows", "nmade"], "i32"),
    **dict.fromkeys(["split_dB", "split_dC"], "*fp32"),
    **{"seq_idx": "*i32", "made": "*i32", "plane": "i64", "dt_min": "fp32", "dt_max": "fp32"},
}
CONSTANTS = {
    decays_kernel: {"H": HEADS, "SOFTPLUS": True, "BIAS": True},
    parts_kernel: {"REVERSE": True, "DOCUMENTS": True},
    states_kernel: {"DOCUMENTS": True},
    scan_kernel: {"SKIP": True, "DOCUMENTS": True, "START": True},
    gradients_kernel: {"SKIP": True, "DOCUMENTS": True, "STAGES": MORE_STAGES},
    sum_splits_kernel: {"width": DSTATE, "T": SUM_TILE},
    step_gradients_kernel: {"H": HEADS, "SOFTPLUS": True, "BIAS": True},
    totals_kernel: {"R": TOTAL_TILE, "H": HEADS, "SKIP": True, "BIAS": True},
}
KERNELS = [
    Kernel(
        kernel,
        PLAN.dots | {"HOPPER": False} | constants,
        TYPES,
        options={"num_stages": PLAN.dots["num_stages"], "num_warps": PLAN.warps}
        | (PLAN.along if kernel is states_kernel else {})
        | (PLAN.prefetch if kernel is parts_kernel else {}),
        spilled=SPILLED_BY_BOTH if kernel is gradients_kernel else SPILLED,
        hopper={"HOPPER": True},
        instructions=NAN_STAYS if kernel is decays_kernel else (),
    )
    for kernel, constants in CONSTANTS.items()
]
KERNELS += [
    Kernel(
        kernel,
        PLAN.dots | {"STAGES": stages, "SKIP": True, "START": True, "REVERSE": True, "DOCUMENTS": documents},
        TYPES,
        options={"num_warps": 4},
        architectures=(90,),
        spilled={90: spilled},
        label="documents" if documents else "",
    )
    for kernel, stages, spilled in [
        (fused_parts_kernel, STAGES_OF_STATES, 0),
        (fused_states_kernel, STAGES_OF_STATES, 0),
        (fused_scan_kernel, STAGES_OF_SCAN, 300),  # nearly all beside the loops over chunks
        (fused_gradients_kernel, STAGES_OF_GRADIENTS, 64),
    ]
    for documents in (False, True)
]
