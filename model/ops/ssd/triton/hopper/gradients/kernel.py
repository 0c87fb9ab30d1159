"""The kernel: what its warps share, and which they are."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from model.ops._launch import Launched
from model.ops.ssd.triton.hopper.gradients.load import load
from model.ops.ssd.triton.hopper.gradients.maps import maps
from model.ops.ssd.triton.hopper.gradients.through import through
from model.ops.ssd.triton.hopper.gradients.updates import updates

STAGES = 3
"""Heads whose tiles are in shared memory at a time."""

THREADS = gl.constexpr(128)
"""That load."""

REGISTERS = gl.constexpr((152, 112, 40))
"""Of a thread of `maps`, `updates`, `load`; `through` has what is left of 512. A register that any of them spills costs
more than its loads: the fences wait for its stores."""


@Launched
@gluon.jit
def fused_gradients_kernel(
    dy, x, decays, plane, B, C, D, seq_idx, states, d_states, dx, dB, dC, shares, dD, d_across,
    seqlen, nheads, ngroups, nchunks, nsplits, first_chunk, out_rows, out_chunk,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, SKIP: gl.constexpr, DOCUMENTS: gl.constexpr,
    STAGES: gl.constexpr,
):  # fmt: skip
    """Of a chunk and some heads of a group, what `gradients_kernel` computes; all in bf16, P and N their sizes."""
    chunk, b, chunks = gl.program_id(0), gl.program_id(2), gl.num_programs(0)
    g, split = gl.program_id(1) // nsplits, gl.program_id(1) % nsplits
    heads_of_group = nheads // ngroups
    heads = gl.cdiv(heads_of_group, nsplits)
    first_head, count = g * heads_of_group + split * heads, gl.minimum(heads, heads_of_group - split * heads)
    c = first_chunk + chunk
    out = (split * gl.num_programs(2) + b).to(gl.int64) * out_rows + (c - out_chunk) * Q

    narrow: gl.constexpr = gl.NVMMASharedLayout.get_default_for([Q, P], gl.bfloat16)
    wide: gl.constexpr = gl.NVMMASharedLayout.get_default_for([Q, N], gl.bfloat16)
    of_state: gl.constexpr = gl.NVMMASharedLayout.get_default_for([P, N], gl.bfloat16)
    square: gl.constexpr = gl.NVMMASharedLayout.get_default_for([Q, Q], gl.bfloat16)
    line: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    x_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, Q, P], narrow)
    dy_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, Q, P], narrow)
    before = gl.allocate_shared_memory(gl.bfloat16, [STAGES, P, N], of_state)
    after = gl.allocate_shared_memory(gl.bfloat16, [STAGES, P, N], of_state)
    vectors = gl.allocate_shared_memory(gl.float32, [4 * STAGES, Q], line)
    B_tile = gl.allocate_shared_memory(gl.bfloat16, [Q, N], wide)
    C_tile = gl.allocate_shared_memory(gl.bfloat16, [Q, N], wide)
    handed = gl.allocate_shared_memory(gl.bfloat16, [2, Q, Q], square)
    sums = gl.allocate_shared_memory(gl.float32, [2, Q // 4, Q], gl.SwizzledSharedLayout(8, 1, 4, [1, 0]))
    of_updates = gl.allocate_shared_memory(gl.float32, [4, Q], line)
    own = gl.allocate_shared_memory(gl.float32, [Q], line)
    gradient = gl.allocate_shared_memory(gl.bfloat16, [Q, Q], square)

    ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    finished = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    made = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    ended = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    mbarrier.init(ready, count=THREADS)
    mbarrier.init(finished, count=1)
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=THREADS)
        mbarrier.init(empty.index(i), count=3)  # who reads: `through`, `maps`, `updates`
    for i in gl.static_range(2):
        mbarrier.init(made.index(i), count=1)
        mbarrier.init(ended.index(i), count=1)
    gl.warp_specialize(
        [
            (through, (
                dB, dC, shares, plane, d_across, seq_idx, x_tiles, dy_tiles, B_tile, C_tile, gradient, vectors,
                before, after, ready, full, empty, finished, first_head, count, b, c, out, g,
                seqlen, nheads, ngroups, nchunks, Q, P, N, DOCUMENTS, STAGES,
            )),
            (maps, (
                seq_idx, x_tiles, dy_tiles, B_tile, C_tile, gradient, handed, sums, of_updates, own, vectors,
                ready, full, empty, made, ended, finished, count, b, c, seqlen, Q, DOCUMENTS, STAGES,
            )),
            (updates, (
                dx, shares, plane, D, dD, seq_idx, x_tiles, dy_tiles, B_tile, C_tile, handed, sums, of_updates, own,
                vectors, after, ready, full, empty, made, ended, finished, first_head, count, b, c,
                seqlen, nheads, nchunks, Q, P, SKIP, DOCUMENTS, STAGES,
            )),
            (load, (
                x, dy, B, C, decays, plane, states, d_states, x_tiles, dy_tiles, B_tile, C_tile, vectors, before, after,
                ready, full, empty, first_head, count, b, c, chunk, chunks, g, seqlen, nheads, ngroups, nchunks,
                Q, P, N, STAGES,
            )),
        ],
        [4, 4, 4],
        [REGISTERS[0], REGISTERS[1], REGISTERS[2]],
    )  # fmt: skip
