"""The kernel: what its warps share, and which they are."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from model.ops._launch import Launched
from model.ops.ssd.triton.hopper.parts import ARRIVALS, here
from model.ops.ssd.triton.hopper.scan.load import load
from model.ops.ssd.triton.hopper.scan.maps import maps
from model.ops.ssd.triton.hopper.scan.outputs import outputs

STAGES = 3
"""Chunks whose tiles are in shared memory at a time."""

REGISTERS = gl.constexpr((200, 80, 32))
"""Of a thread of the second head's `outputs`, of `maps`, of `load`; the first head's has what is left of 512."""


@Launched
@gluon.jit
def fused_scan_kernel(
    x, decays, plane, B, C, D, seq_idx, start, local, decay, y, starts, final,
    seqlen, nheads, ngroups, nsegments, parts, chunks_of_part, nchunks, chunks_of_start, nstarts,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, SKIP: gl.constexpr, DOCUMENTS: gl.constexpr,
    START: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Of a segment and two heads of a group, what `scan_kernel` computes; all in bf16, P and N their sizes."""
    h, b, s = 2 * gl.program_id(0), gl.program_id(1) // nsegments, gl.program_id(1) % nsegments
    g = h // (nheads // ngroups)
    first_chunk = here(s * parts * chunks_of_part)
    last_chunk = gl.minimum(first_chunk + parts * chunks_of_part, nchunks)

    narrow: gl.constexpr = gl.NVMMASharedLayout.get_default_for([Q, P], gl.bfloat16)
    wide: gl.constexpr = gl.NVMMASharedLayout.get_default_for([Q, N], gl.bfloat16)
    square: gl.constexpr = gl.NVMMASharedLayout.get_default_for([Q, Q], gl.bfloat16)
    line: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    x_tiles = gl.allocate_shared_memory(gl.bfloat16, [2 * STAGES, Q, P], narrow)
    B_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, Q, N], wide)
    C_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, Q, N], wide)
    vectors = gl.allocate_shared_memory(gl.float32, [6 * STAGES, Q], line)
    documents = gl.allocate_shared_memory(gl.int32, [STAGES, Q], line)
    handed = gl.allocate_shared_memory(gl.bfloat16, [4, Q, Q], square)

    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    made = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    taken = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=ARRIVALS)
        mbarrier.init(empty.index(i), count=3)  # who reads: both heads' `outputs`, `maps`
    for i in gl.static_range(2):
        mbarrier.init(made.index(i), count=1)
        mbarrier.init(taken.index(i), count=2)
    gl.warp_specialize(
        [
            (outputs, (
                0, D, seq_idx, start, local, decay, starts, final, x_tiles, B_tiles, C_tiles, vectors, documents,
                handed, full, empty, made, taken, h, b, s, first_chunk, last_chunk, seqlen, nheads, nsegments, parts,
                chunks_of_start, nstarts, Q, P, N, SKIP, DOCUMENTS, START, STAGES,
            )),
            (outputs, (
                1, D, seq_idx, start, local, decay, starts, final, x_tiles, B_tiles, C_tiles, vectors, documents,
                handed, full, empty, made, taken, h, b, s, first_chunk, last_chunk, seqlen, nheads, nsegments, parts,
                chunks_of_start, nstarts, Q, P, N, SKIP, DOCUMENTS, START, STAGES,
            )),
            (maps, (
                B_tiles, C_tiles, vectors, documents, handed, full, empty, made, taken, first_chunk, last_chunk,
                Q, DOCUMENTS, STAGES,
            )),
            (load, (
                x, y, B, C, decays, plane, seq_idx, x_tiles, B_tiles, C_tiles, vectors, documents, full, empty, h, b, g,
                first_chunk, last_chunk, seqlen, nheads, ngroups, nchunks, Q, P, N, DOCUMENTS, STAGES,
            )),
        ],
        [4, 4, 1],
        [REGISTERS[0], REGISTERS[1], REGISTERS[2]],
    )  # fmt: skip
