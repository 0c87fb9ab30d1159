"""The kernels: what their warps share, and which they are."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from model.ops._launch import Launched
from model.ops.ssd.triton.hopper.parts import ARRIVALS
from model.ops.ssd.triton.hopper.states.carry import carry_part, carry_states
from model.ops.ssd.triton.hopper.states.load import load

STAGES = 4
"""Chunks whose tiles are in shared memory at a time."""

REGISTERS = gl.constexpr((200, 32))
"""Of a thread of the second head's `carry`, of `load`."""


@Launched
@gluon.jit
def fused_parts_kernel(
    x, decays, plane, B, seq_idx, local, decay,
    seqlen, nheads, ngroups, nsegments, parts, chunks_of_part, first_chunk, nchunks,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, REVERSE: gl.constexpr, DOCUMENTS: gl.constexpr,
    STAGES: gl.constexpr,
):  # fmt: skip
    """Of two heads of a group, what `parts_kernel` computes; all in bf16, P and N their sizes."""
    every = (nsegments - 1) * parts
    h, b, k = 2 * gl.program_id(0), gl.program_id(1) // every, gl.program_id(1) % every
    first = first_chunk + k * chunks_of_part
    if REVERSE:
        first += parts * chunks_of_part
    where = (h, b, gl.to_tensor(REVERSE), first, gl.minimum(chunks_of_part, nchunks - first), seqlen, nheads)
    ring = _ring(Q, P, N, STAGES)
    gl.warp_specialize(
        [
            (carry_part, (0, local, decay, every, k, seq_idx, ring, where, Q, P, N, DOCUMENTS, STAGES)),
            (carry_part, (1, local, decay, every, k, seq_idx, ring, where, Q, P, N, DOCUMENTS, STAGES)),
            (load, (x, B, decays, plane, seq_idx, ring, where, ngroups, nchunks, Q, P, N, DOCUMENTS, STAGES)),
        ],
        [4, 1],
        [REGISTERS[0], REGISTERS[1]],
    )


@Launched
@gluon.jit
def fused_states_kernel(
    x, dy, decays, plane, B, C, seq_idx, starts, final, local, decay, states, d_states, d_start,
    seqlen, nheads, ngroups, nsegments, parts, chunks_of_part, first_chunk, nchunks, all_segments,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, DOCUMENTS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Of two heads of a group, what `states_kernel` computes; all in bf16, P and N their sizes."""
    h, b, k = 2 * gl.program_id(0), gl.program_id(1) // nsegments, gl.program_id(1) % nsegments
    chunks, reverse = parts * chunks_of_part, gl.program_id(2) == 1
    first, in_all = first_chunk + k * chunks, gl.minimum(nsegments * chunks, nchunks - first_chunk)
    read, factors, out = x, B, states
    if reverse:
        read, factors, out = dy, C, d_states
    where = (h, b, reverse, first, gl.minimum(chunks, nchunks - first), seqlen, nheads)
    cut = (k, nsegments, parts, chunks, first_chunk, in_all, all_segments)
    ends = (starts, final, local, decay, d_start)
    ring = _ring(Q, P, N, STAGES)
    gl.warp_specialize(
        [
            (carry_states, (0, ends, out, cut, seq_idx, ring, where, Q, P, N, DOCUMENTS, STAGES)),
            (carry_states, (1, ends, out, cut, seq_idx, ring, where, Q, P, N, DOCUMENTS, STAGES)),
            (load, (read, factors, decays, plane, seq_idx, ring, where, ngroups, nchunks, Q, P, N, DOCUMENTS, STAGES)),
        ],
        [4, 1],
        [REGISTERS[0], REGISTERS[1]],
    )


@gluon.jit
def _ring(Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, STAGES: gl.constexpr):
    """Places for what is loaded: of both heads the tiles of x, or dy; of B, or C; of both heads two vectors; documents.
    And their barriers.
    """
    narrow: gl.constexpr = gl.NVMMASharedLayout.get_default_for([Q, P], gl.bfloat16)
    wide: gl.constexpr = gl.NVMMASharedLayout.get_default_for([Q, N], gl.bfloat16)
    line: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    tiles = gl.allocate_shared_memory(gl.bfloat16, [2 * STAGES, Q, P], narrow)
    factors = gl.allocate_shared_memory(gl.bfloat16, [STAGES, Q, N], wide)
    vectors = gl.allocate_shared_memory(gl.float32, [4 * STAGES, Q], line)
    documents = gl.allocate_shared_memory(gl.int32, [STAGES, Q], line)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=ARRIVALS)
        mbarrier.init(empty.index(i), count=2)  # both heads' `carry`
    return tiles, factors, vectors, documents, full, empty
