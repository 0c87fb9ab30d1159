"""How a call is cut: into chunks, segments, parts of them and slices, and what its kernels are compiled for."""

from operator import index
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from model.ops._launch import power_of_2
from model.ops.ssd.triton.parts import INTERPRETED

MULTIPROCESSORS = 132
"""Of an H100 or H200."""

PROGRAMS = 2 * MULTIPROCESSORS
"""That a launch should have at most for the sake of parallelism: two for each multiprocessor of an H100, as many as fit
there (of those in hopper/ one, of two heads). A constant, since the number of segments is part of the rounding."""

MOST_SEGMENTS = 16
LEAST_CHUNKS = 4
"""Of a segment."""

SLICE = 2**27
MOST_SLICES = 8
"""Bytes of states between chunks, and of their gradients, that the backward holds at a time, unless that takes more
slices than so many: each costs launches, and the end of each an idle part of the GPU."""

STAGES = 2
"""Of the pipelines of loads, in bf16; fp32 has no shared memory to spare. Three are slower if they cost a program."""

MORE_STAGES = 3
"""Where there is room for it: in `parts`, `states` and `gradients` inside a chunk, with states of up to 64 x 128."""


class Plan:
    """Sizes of a call: a function of shapes and dtypes alone, so that results are, on one kind of device; but for
    `slice_bytes`, with which a small input goes through all that a large one does. `hopper` says of the device what
    changes no result, `fused` that the kernels of `hopper/` are used, in which a program fills a multiprocessor and
    most have two heads of a group.
    """

    def __init__(self, x: Tensor, B: Tensor, slice_bytes: int | None = None) -> None:
        # Numbers, also where torch.compile has symbols: it compiles for each shape, since each has a plan of its own
        self.batch, self.seqlen, self.nheads, self.headdim = map(index, x.shape)
        self.ngroups, self.dstate = map(index, B.shape[2:])
        self.Q = 64 if x.dtype is torch.bfloat16 else 32
        self.P, self.N = (max(16, power_of_2(size)) for size in (self.headdim, self.dstate))
        self.nchunks = -(-self.seqlen // self.Q)
        self.state_dtype = torch.bfloat16 if x.dtype is torch.bfloat16 else torch.float32
        self._cut(self.batch * self.nheads, slice_bytes or SLICE)
        self.hopper = _is_hopper(x)
        bf16, heads = x.dtype is torch.bfloat16, self.nheads // self.ngroups
        self.fused = self.hopper and bf16 and (self.headdim, self.dstate) == (64, 128) and heads % 2 == 0
        programs = MULTIPROCESSORS if self.fused else PROGRAMS
        self.nsplits = min(heads, max(1, programs // (self.batch * self.chunks_of_slice * self.ngroups)))
        self.nsplits = -(-heads // -(-heads // self.nsplits))
        self.warps = 4 if self.P * self.N <= 8192 else 8
        small = x.dtype is torch.bfloat16 and self.P * self.N <= 8192
        stages = STAGES if x.dtype is torch.bfloat16 else 1
        self.prefetch = {"num_stages": MORE_STAGES if small else stages}
        self.along = self.prefetch | {"num_warps": 8}
        self.plane = self.batch * self.nheads * self.nchunks * self.Q
        self.dots: dict[str, Any] = {
            "headdim": self.headdim,
            "dstate": self.dstate,
            "Q": self.Q,
            "P": self.P,
            "N": self.N,
            "DOT": tl.bfloat16 if x.dtype is torch.bfloat16 else tl.float32,
            "PRECISION": "tf32" if x.dtype is torch.float16 else "ieee",
            "num_stages": stages,
        }

    def _cut(self, rows: int, slice_bytes: int) -> None:
        """Chunks into the forward's segments; those into the backward's, which start where a state is saved, and these
        into slices. Of a segment's parts there are as many in both.
        """
        chunks = -(-self.nchunks // min(max(1, PROGRAMS // rows), max(1, self.nchunks // LEAST_CHUNKS), MOST_SEGMENTS))
        segments = -(-self.nchunks // chunks)
        states = 2 * rows * self.nchunks * self.headdim * self.dstate * self.state_dtype.itemsize
        slices = min(MOST_SLICES, -(-states // slice_bytes))
        saved = min(-(-slices // segments), max(1, chunks // LEAST_CHUNKS))
        of_segment = chunks // saved
        parts = min(max(1, PROGRAMS // (rows * max(1, segments - 1))), max(1, of_segment // LEAST_CHUNKS))
        of_part = -(-chunks // (saved * parts))
        self.chunks_of_segment = parts * of_part
        self.nsegments = -(-self.nchunks // (saved * self.chunks_of_segment))
        self.forward_cut = (self.nsegments, parts, saved * of_part)
        in_all = -(-self.nchunks // self.chunks_of_segment)
        self.segments_of_slice = -(-in_all // slices)
        self.backward_cut = (self.segments_of_slice, parts, of_part)
        self.chunks_of_slice = min(self.nchunks, self.segments_of_slice * self.chunks_of_segment)
        self.nslices = -(-self.nchunks // self.chunks_of_slice)
        self.nstarts = self.nslices * self.segments_of_slice


def _is_hopper(x: Tensor) -> bool:
    """Whether kernels use what was measured on Hopper only, and in part is nowhere else."""
    if not x.is_cuda or not torch.cuda.is_available() or INTERPRETED.value:
        return False
    return torch.cuda.get_device_capability(x.device)[0] == 9
