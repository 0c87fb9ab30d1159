"""State-space duality: the selective scan of Mamba2 (Dao and Gu 2024, arXiv 2405.21060)."""

import math
from typing import Any

from torch import Tensor, bfloat16, float16, float32, int32

from model.ops._common import (
    Backend,
    asked,
    check_documents,
    check_shape,
    check_tensors,
    chosen,
    compute_dtype,
    number_documents,
    runs_triton,
)
from model.ops._native import runs_native
from model.ops._operator import operator
from model.ops.ssd import native, reference, selfcheck
from model.ops.ssd.step import ssd_step
from model.ops.ssd.torch import backward, chunk_length, forward

__all__ = ["ssd", "ssd_step"]

MOST_ROWS = 4095
"""Of a batch that a launch has room for: 65535 programs in its second dimension, up to 16 segments a row."""

NATIVE = {"native": float32, "native-bf16": bfloat16}
"""Of the operator's paths, those in C, and the dtype that they multiply."""


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    chunk_size: int = 256,
    return_final_state: bool = False,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the scan over whole sequences; differentiable in every tensor but seq_idx.

    With the step size d_t = clamp(softplus(dt_t + dt_bias), dt_limit), per head:
    state_t = exp(d_t A) state_{t-1} + d_t x_t B_t^T and y_t = state_t C_t + D x_t.

    Args:
        x: (batch, seqlen, nheads, headdim) inputs.
        dt: (batch, seqlen, nheads) step sizes before bias and softplus.
        A: (nheads,) negative decay rates.
        B: (batch, seqlen, ngroups, dstate) input maps; nheads is a multiple of ngroups.
        C: (batch, seqlen, ngroups, dstate) output maps.
        D: (nheads,) skip weights.
        dt_bias: (nheads,) added to dt.
        dt_softplus: apply softplus after the bias.
        dt_limit: smallest and largest step size, applied last.
        initial_state: (batch, nheads, headdim, dstate) state before the first position.
        seq_idx: (batch, seqlen) int32 document index of each position, non-decreasing along a row. A new
            document starts from a zero state; `initial_state` belongs to a row's first document. Other integers are
            numbered first: a document begins wherever they change.
        chunk_size: positions per chunk; a speed hint, results do not depend on it.
        return_final_state: also return the state after the last position.
        backend: "triton" (on a GPU, in fp32, bf16 or fp16), "native" (C, on a CPU, likewise), "torch" (chunked),
            "reference" (sequential, fp64 inside) or "auto": the fastest that takes these inputs, or what the
            environment's MAMBA2_BACKEND says.

    Returns:
        y (batch, seqlen, nheads, headdim) in x's dtype; with `return_final_state` the pair of y and the final
        state (batch, nheads, headdim, dstate) in fp32 (fp64 for fp64 x).

    Raises:
        ValueError: shapes that do not fit together, tensors on several devices, x of integers, or a backend that is
            unknown or does not take these inputs.
    """
    _check(x, dt, A, B, C, D, dt_bias, initial_state, seq_idx, chunk_size)
    if seq_idx is not None and seq_idx.dtype != int32:
        seq_idx = number_documents(seq_idx)  # which fit
    if x.is_cuda and x.dtype is float32 and asked(backend) == "auto":
        backend = "torch"  # the kernels' plain fp32 products have too many registers: 4 times as long (docs/kernels.md)
    path = chosen(
        backend,
        triton=lambda: _triton_takes(x, B, check=backend != "triton"),
        native=lambda: runs_native(x) and native.works(),
    )
    if path == "reference":
        y, final_state = reference.ssd(x, dt, A, B, C, D, dt_bias, dt_softplus, dt_limit, initial_state, seq_idx)
        y, final_state = y.to(x.dtype), final_state.to(compute_dtype(x))
    else:
        bf16 = path == "native" and native.takes_bf16(x, B, C)
        options = (dt_softplus, *dt_limit, chunk_size, "native-bf16" if bf16 else path)
        y, final_state, *_ = _SSD(x, dt, A, B, C, D, dt_bias, initial_state, seq_idx, *options)
    return (y, final_state) if return_final_state else y


def _triton_takes(x: Tensor, B: Tensor, check: bool) -> bool:
    """Whether there is a kernel for these inputs, whose states fit into registers; with `check`, one found to work."""
    sizes = (x.shape[-1], B.shape[-1])
    fits = max(sizes) <= 128 and x.numel() > 0 and len(x) <= MOST_ROWS
    if x.dtype not in (float32, bfloat16, float16) or not fits or not runs_triton(x):
        return False
    return not check or (x.is_cuda and selfcheck.passes(str(x.device), x.dtype, *sizes))


def _check(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    chunk_size: int,
) -> None:
    if x.dim() != 4 or B.dim() != 4:
        raise ValueError(
            f"x {tuple(x.shape)} must be (batch, seqlen, nheads, headdim) and "
            f"B {tuple(B.shape)} (batch, seqlen, ngroups, dstate)"
        )
    batch, seqlen, nheads, headdim = x.shape
    ngroups, dstate = B.shape[2:]
    if seqlen == 0:
        raise ValueError("x has no positions: seqlen must be at least 1")
    if 0 in (nheads, headdim, ngroups, dstate):
        raise ValueError(f"there are {nheads} heads of {headdim}, {ngroups} groups, {dstate} in a state: none may be 0")
    if nheads % ngroups:
        raise ValueError(f"{nheads} heads do not divide into {ngroups} groups: make nheads a multiple of ngroups")
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}: it must be at least 1")
    check_shape("dt", dt, (batch, seqlen, nheads))
    check_shape("A", A, (nheads,))
    check_shape("B", B, (batch, seqlen, ngroups, dstate))
    check_shape("C", C, (batch, seqlen, ngroups, dstate))
    for name, per_head in (("D", D), ("dt_bias", dt_bias)):
        if per_head is not None:
            check_shape(name, per_head, (nheads,))
    if initial_state is not None:
        check_shape("initial_state", initial_state, (batch, nheads, headdim, dstate))
    if seq_idx is not None:
        check_documents(seq_idx, (batch, seqlen))
    check_tensors(x=x, dt=dt, A=A, B=B, C=C, D=D, dt_bias=dt_bias, initial_state=initial_state, seq_idx=seq_idx)


def _ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    chunk_size: int,
    path: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = (x, dt, A, B, C, D, dt_bias, initial_state, seq_idx, dt_softplus, (dt_min, dt_max))
    if len(x) == 0:
        return _fake_ssd(*inputs[:-1], dt_min, dt_max, chunk_size, path)  # all is empty
    if path == "triton":
        return _triton().forward(*inputs)
    if path in NATIVE:
        return *native.forward(*inputs, NATIVE[path]), x.new_empty(0)
    y, final_state, states = forward(*inputs, chunk_size)
    return y.to(x.dtype), final_state, states, x.new_empty(0)


def _fake_ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    chunk_size: int,
    path: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, seqlen, nheads, headdim = x.shape
    y, state, dtype = x.new_empty(x.shape), (batch, nheads, headdim, B.shape[-1]), compute_dtype(x)
    final_state = x.new_empty(state, dtype=dtype)
    if path == "triton":
        return y, final_state, *_triton().saved(x, B)
    if path in NATIVE:
        return y, final_state, x.new_empty(native.kept(x, B, NATIVE[path]), dtype=NATIVE[path]), x.new_empty(0)
    chunks = -(-seqlen // chunk_length(x.device, chunk_size, seqlen))
    return y, final_state, x.new_empty((batch, chunks, *state[1:]), dtype=dtype), x.new_empty(0)


def _triton() -> Any:
    """The kernels; only a machine with a GPU needs Triton."""
    from model.ops.ssd import triton

    return triton


def _ssd_backward(
    grad_y: Tensor | None,
    grad_final_state: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    seq_idx: Tensor | None,
    states: Tensor,
    decays: Tensor,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    chunk_size: int,
    path: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = (grad_y, grad_final_state, x, dt, A, B, C, D, dt_bias, seq_idx, states)
    if len(x) == 0:
        empty = _fake_ssd_backward(*inputs, decays, dt_softplus, dt_min, dt_max, chunk_size, path)
        return tuple(map(Tensor.zero_, empty))  # type: ignore[return-value]
    if path == "triton":
        return _triton().backward(*inputs, decays, dt_softplus, (dt_min, dt_max))
    if path in NATIVE:
        return native.backward(*inputs, dt_softplus, (dt_min, dt_max))
    return backward(*inputs, dt_softplus, (dt_min, dt_max), chunk_size)


def _fake_ssd_backward(
    grad_y: Tensor | None,
    grad_final_state: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    seq_idx: Tensor | None,
    states: Tensor,
    decays: Tensor,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    chunk_size: int,
    path: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    per_head, (batch, _, nheads, headdim) = (A.shape[0],), x.shape
    return (
        x.new_empty(x.shape),
        dt.new_empty(dt.shape),
        A.new_empty(per_head),
        B.new_empty(B.shape),
        C.new_empty(C.shape),
        (A if D is None else D).new_empty(per_head),
        x.new_empty(per_head, dtype=compute_dtype(x) if dt_bias is None else dt_bias.dtype),
        x.new_empty((batch, nheads, headdim, B.shape[-1]), dtype=compute_dtype(x)),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, dt, A, B, C, D, dt_bias, initial_state, seq_idx, *ctx.options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, dt, A, B, C, D, dt_bias, seq_idx, *output[2:])
    ctx.state_dtype = None if initial_state is None else initial_state.dtype


def _gradients(
    ctx: Any, grad_y: Tensor | None, grad_final_state: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: checkpointing makes them anew each time, or refuses
    D, dt_bias = saved[5:7]
    dx, ddt, dA, dB, dC, dD, d_bias, d_state = _SSD_BACKWARD(grad_y, grad_final_state, *saved, *ctx.options)
    return (
        dx,
        ddt,
        dA,
        dB,
        dC,
        None if D is None else dD,
        None if dt_bias is None else d_bias,
        None if ctx.state_dtype is None else d_state.to(ctx.state_dtype),
        *(None,) * 6,
    )


_SSD = operator(_ssd, _fake_ssd, _save, _gradients)
_SSD_BACKWARD = operator(_ssd_backward, _fake_ssd_backward)
