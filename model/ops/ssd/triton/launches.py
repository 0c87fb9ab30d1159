"""The launches of a forward and of a backward, all but their tensors known: what depends on the plan is done once."""

from typing import Any

import torch

from model.ops._launch import Launched, Launches
from model.ops.ssd.triton.decays import decays_kernel, step_gradients_kernel, totals_kernel
from model.ops.ssd.triton.gradients import gradients_kernel, sum_splits_kernel
from model.ops.ssd.triton.hopper.gradients.kernel import STAGES as STAGES_OF_GRADIENTS
from model.ops.ssd.triton.hopper.gradients.kernel import fused_gradients_kernel
from model.ops.ssd.triton.hopper.scan.kernel import STAGES as STAGES_OF_SCAN
from model.ops.ssd.triton.hopper.scan.kernel import fused_scan_kernel
from model.ops.ssd.triton.hopper.states.kernel import STAGES as STAGES_OF_STATES
from model.ops.ssd.triton.hopper.states.kernel import fused_parts_kernel, fused_states_kernel
from model.ops.ssd.triton.plan import Plan
from model.ops.ssd.triton.scan import scan_kernel
from model.ops.ssd.triton.states import parts_kernel, states_kernel

HEADS = 16
"""That one program makes decays for, or totals."""

TOTAL_TILE = 64
"""Chunks that are added to a total at once."""

SUM_TILE = 1024
"""Elements of dB or dC that one program sums over splits."""


class Forward:
    """`launches(x, dt, A, B, C, dt_bias, D, initial_state, seq_idx, y, final, starts, decays)`."""

    def __init__(self, plan: Plan, dt_limit: tuple[float, float], *flags: bool) -> None:
        softplus, bias, skip, start, documents = flags
        nsegments, parts, chunks_of_part = plan.forward_cut
        inputs = ("x", "dt", "A", "B", "C", "dt_bias", "D", "start", "seq_idx")
        self.plan = plan
        self.launches = Launches((*inputs, "y", "final", "starts", "decays"), _of_parts(plan, *plan.forward_cut))
        sizes: dict[str, Any] = {"seqlen": plan.seqlen, "nheads": plan.nheads, "nchunks": plan.nchunks}
        cut: dict[str, Any] = {"nsegments": nsegments, "parts": parts, "chunks_of_part": chunks_of_part}
        options = plan.dots | {"ngroups": plan.ngroups, "plane": plan.plane}
        options |= {"DOCUMENTS": documents, "num_warps": plan.warps}
        self.launches.add(
            decays_kernel, (plan.nchunks, -(-plan.nheads // HEADS), plan.batch),
            **sizes, dt_min=dt_limit[0], dt_max=dt_limit[1], Q=plan.Q, H=HEADS, SOFTPLUS=softplus, BIAS=bias,
        )  # fmt: skip
        if nsegments > 1:
            kernel, programs, constants = _for_parts(plan, options)
            self.launches.add(
                kernel, (programs, plan.batch * (nsegments - 1) * parts),
                **sizes, **cut, first_chunk=0, REVERSE=False, **constants,
            )  # fmt: skip
        kernel, programs, constants = _for_segments(plan, options | {"SKIP": skip, "START": start})
        self.launches.add(
            kernel, (programs, plan.batch * nsegments),
            **sizes, **cut, chunks_of_start=plan.chunks_of_segment, nstarts=plan.nstarts, **constants,
        )  # fmt: skip


class Backward:
    """`launches(dy, d_final, x, dt, A, B, C, dt_bias, D, seq_idx, starts, decays, dx, ddt, dA, dB, dC, dD, d_bias,
    d_start)`.
    """

    def __init__(self, plan: Plan, dt_limit: tuple[float, float], *flags: bool) -> None:
        softplus, bias, skip, documents = flags
        inputs = ("dy", "d_final", "x", "dt", "A", "B", "C", "dt_bias", "D", "seq_idx", "starts", "decays")
        outputs = ("dx", "ddt", "total_dA", "dB", "dC", "total_dD", "total_d_bias", "d_start")
        self.launches = Launches((*inputs, *outputs), _of_backward(plan))
        sizes: dict[str, Any] = {"seqlen": plan.seqlen, "nheads": plan.nheads, "nchunks": plan.nchunks}
        options = plan.dots | {"ngroups": plan.ngroups, "plane": plan.plane}
        options |= {"DOCUMENTS": documents, "num_warps": plan.warps}
        for i in reversed(range(plan.nslices)):
            self._add_slice(plan, i, skip, sizes, options)
        self.launches.add(
            step_gradients_kernel, (plan.nchunks, -(-plan.nheads // HEADS), plan.batch),
            **sizes, dt_min=dt_limit[0], dt_max=dt_limit[1], Q=plan.Q, H=HEADS, SOFTPLUS=softplus, BIAS=bias,
        )  # fmt: skip
        self.launches.add(
            totals_kernel, (-(-plan.nheads // HEADS), 3),
            rows=plan.batch * plan.nchunks, nheads=plan.nheads, R=TOTAL_TILE, H=HEADS, SKIP=skip, BIAS=bias,
        )  # fmt: skip

    def _add_slice(self, plan: Plan, i: int, skip: bool, sizes: dict[str, Any], options: dict[str, Any]) -> None:
        """Of slice i. The gradient of the state before it is that of the one after the slice before."""
        first = i * plan.chunks_of_slice
        nsegments, parts, chunks_of_part = plan.backward_cut
        count = min(plan.chunks_of_slice, plan.nchunks - first)
        sizes = sizes | {"first_chunk": first}
        cut: dict[str, Any] = {"nsegments": nsegments, "parts": parts, "chunks_of_part": chunks_of_part}
        if nsegments > 1:
            kernel, programs, constants = _for_parts(plan, options)
            self.launches.add(
                kernel, (programs, plan.batch * (nsegments - 1) * parts), {"x": "dy", "B": "C"},
                **sizes, **cut, REVERSE=True, **constants,
            )  # fmt: skip
        d_before, d_after = ("d_start", "d_between")[:: 1 if i % 2 == 0 else -1]
        kernel, programs, constants = _for_states(plan, count, options)
        self.launches.add(
            kernel, (programs, plan.batch * nsegments, 2),
            {"final": "d_final" if i == plan.nslices - 1 else d_after, "d_start": d_before},
            **sizes, **cut, all_segments=plan.nstarts, **constants,
        )  # fmt: skip
        kernel, programs, constants = _for_chunks(plan, options | {"nsplits": plan.nsplits, "SKIP": skip})
        grid = (programs * count, plan.ngroups * plan.nsplits, plan.batch)
        if plan.nsplits == 1:
            self.launches.add(kernel, grid, **sizes, out_rows=plan.seqlen, out_chunk=0, **constants)
            return
        rows, length = plan.chunks_of_slice * plan.Q, min(count * plan.Q, plan.seqlen - first * plan.Q)
        self.launches.add(
            kernel, grid, {"dB": "split_dB", "dC": "split_dC"},
            **sizes, out_rows=rows, out_chunk=first, **constants,
        )  # fmt: skip
        width = plan.ngroups * plan.dstate
        self.launches.add(
            sum_splits_kernel, (-(-length * width // SUM_TILE), plan.batch, 2),
            nsplits=plan.nsplits, split_rows=rows, all_rows=plan.seqlen, first_row=first * plan.Q, rows=length,
            width=width, T=SUM_TILE,
        )  # fmt: skip


Kernel = tuple[Launched, int, dict[str, Any]]
"""With its programs for all heads, or for a chunk, and its constants."""


def _for_parts(plan: Plan, options: dict[str, Any]) -> Kernel:
    if plan.fused:
        return fused_parts_kernel, plan.nheads // 2, _fused(options, STAGES_OF_STATES)
    return parts_kernel, plan.nheads, options | plan.prefetch | {"HOPPER": plan.hopper}


def _for_segments(plan: Plan, options: dict[str, Any]) -> Kernel:
    if plan.fused:
        return fused_scan_kernel, plan.nheads // 2, _fused(options, STAGES_OF_SCAN, "SKIP", "START")
    return scan_kernel, plan.nheads, options | {"HOPPER": plan.hopper}


def _for_states(plan: Plan, chunks: int, options: dict[str, Any]) -> Kernel:
    if plan.fused:
        return fused_states_kernel, plan.nheads // 2, _fused(options, STAGES_OF_STATES)
    flags = chunks * plan.ngroups * plan.nsplits * plan.batch
    return states_kernel, plan.nheads, options | plan.along | {"HOPPER": plan.hopper, "nmade": flags}


def _for_chunks(plan: Plan, options: dict[str, Any]) -> Kernel:
    if plan.fused:
        return fused_gradients_kernel, 1, _fused(options, STAGES_OF_GRADIENTS, "nsplits", "SKIP")
    return gradients_kernel, 2, options | {"STAGES": plan.prefetch["num_stages"]}


def _fused(options: dict[str, Any], stages: int, *names: str) -> dict[str, Any]:
    """Of a kernel of hopper/, whose first warps are four."""
    names = ("ngroups", "plane", "Q", "P", "N", "DOCUMENTS", *names)
    return {name: options[name] for name in names} | {"STAGES": stages, "num_warps": 4}


Scratch = dict[str, tuple[tuple[int, ...], torch.dtype]]


def _of_parts(plan: Plan, nsegments: int, parts: int, _: int) -> Scratch:
    """What `parts` makes of all segments but one: states (b, k, h, p, n), and decays (b, k, h)."""
    found = (plan.batch, (nsegments - 1) * parts, plan.nheads)
    return {"local": ((*found, plan.headdim, plan.dstate), torch.float32), "decay": (found, torch.float32)}


def _of_backward(plan: Plan) -> Scratch:
    """What a backward hands from launch to launch, of one slice at a time but for `shares` and sums of chunks."""
    of_state, chunks = (plan.headdim, plan.dstate), (plan.batch, plan.chunks_of_slice)
    states = ((*chunks, plan.nheads, *of_state), plan.state_dtype)
    splits = (plan.nsplits if plan.nsplits > 1 else 0, plan.batch, plan.chunks_of_slice * plan.Q)
    of_splits = ((*splits, plan.ngroups, plan.dstate), torch.float32)
    of_chunks = ((plan.batch, plan.nchunks, plan.nheads), torch.float32)
    return {
        "states": states,
        "d_states": states,
        **_of_parts(plan, *plan.backward_cut),
        "d_between": ((min(1, plan.nslices - 1), plan.batch, plan.nheads, *of_state), torch.float32),
        "made": ((*chunks, plan.ngroups * plan.nsplits), torch.int32),
        "split_dB": of_splits,
        "split_dC": of_splits,
        "shares": ((4, plan.batch, plan.nheads, plan.nchunks * plan.Q), torch.float32),
        **dict.fromkeys(("dA", "dD", "d_bias", "d_across"), of_chunks),
    }
