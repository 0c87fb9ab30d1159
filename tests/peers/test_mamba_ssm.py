"""mamba_ssm's functions on our operators against what each is defined to be, in fp64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.model.compare import assert_agree, outputs_and_gradients
from tests.peers.mamba_ssm import layernorm_fn, mamba_chunk_scan_combined, rmsnorm_fn, selective_state_update
from tests.peers.shim import NotApplicableError

BATCH, SEQLEN, HEADS, HEADDIM, GROUPS, DSTATE = 2, 11, 4, 3, 2, 5


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype)


def scan_inputs(per_channel: bool = False, gated: bool = True) -> dict[str, Tensor]:
    inputs = {
        "x": normal(BATCH, SEQLEN, HEADS, HEADDIM),
        "dt": normal(BATCH, SEQLEN, HEADS),
        "A": -torch.rand(HEADS, dtype=torch.float64) - 0.1,
        "B": normal(BATCH, SEQLEN, GROUPS, DSTATE),
        "C": normal(BATCH, SEQLEN, GROUPS, DSTATE),
        "D": normal(HEADS, HEADDIM) if per_channel else normal(HEADS),
        "dt_bias": normal(HEADS),
        "initial_states": normal(BATCH, HEADS, HEADDIM, DSTATE),
    }
    if gated:
        inputs["z"] = normal(BATCH, SEQLEN, HEADS, HEADDIM)
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
) -> tuple[Tensor, Tensor]:
    """Position by position; the initial state is document 0's. Every head has its own B and C."""
    B, C = (maps.repeat_interleave(x.shape[2] // maps.shape[2], dim=2) for maps in (B, C))
    dt = dt if dt_bias is None else dt + dt_bias
    dt = (F.softplus(dt) if dt_softplus else dt).clamp(*dt_limit)
    state = torch.zeros(len(x), *x.shape[2:], B.shape[-1], dtype=x.dtype) if initial_states is None else initial_states
    before, outputs = torch.zeros(len(x)), []
    for t in range(x.shape[1]):
        if seq_idx is not None:
            state = torch.where((seq_idx[:, t] == before)[:, None, None, None], state, 0)
            before = seq_idx[:, t]
        state = (dt[:, t] * A).exp()[..., None, None] * state
        state = state + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        outputs.append((state * C[:, t, :, None]).sum(-1))
    y = torch.stack(outputs, dim=1)
    if D is not None:
        y = y + x * (D if D.dim() == 2 else D[:, None])
    return y if z is None else y * F.silu(z), state


def both(inputs: dict[str, Tensor], **options: object) -> tuple[list[Tensor], list[Tensor]]:
    def ours() -> tuple[Tensor, ...]:
        return mamba_chunk_scan_combined(**inputs, **options, chunk_size=4, return_final_states=True)

    tensors = list(inputs.values())
    return outputs_and_gradients(ours, tensors), outputs_and_gradients(lambda: scan(**inputs, **options), tensors)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_scan(packed: bool, per_channel: bool, gated: bool) -> None:
    seq_idx = torch.tensor([[0] * 3 + [1] * 5 + [2] * 3, [1] * 11], dtype=torch.int32) if packed else None
    assert_agree(*both(scan_inputs(per_channel, gated), seq_idx=seq_idx, dt_softplus=True), 1e-10)


@pytest.mark.parametrize("absent", ["D", "dt_bias", "initial_states", "all"])
def test_scan_without(absent: str) -> None:
    optional = ("D", "dt_bias", "initial_states", "z")
    inputs = {n: t for n, t in scan_inputs().items() if n != absent and not (absent == "all" and n in optional)}
    assert_agree(*both(inputs, dt_softplus=True), 1e-10)


def test_scan_limits_step_sizes() -> None:
    assert_agree(*both(scan_inputs(), dt_softplus=True, dt_limit=(0.3, 0.9)), 1e-10)
    assert_agree(*both(scan_inputs()), 1e-10)  # without softplus, from 0 on


def test_scan_returns_what_is_asked_for() -> None:
    inputs = {name: tensor.detach()[:1] for name, tensor in scan_inputs().items() if name in ("x", "dt", "B", "C", "z")}
    inputs["A"] = -torch.rand(HEADS, dtype=torch.float64)
    seq_idx = torch.tensor([[0] * 2 + [1] * 6 + [2] * 3], dtype=torch.int32)
    bounds = [0, 2, 8, 11]
    options = {"dt_softplus": True, "seq_idx": seq_idx}
    y = mamba_chunk_scan_combined(**inputs, **options, chunk_size=4)
    assert_agree([y], [scan(**inputs, **options)[0]], 1e-10)
    options |= {"chunk_size": 4, "cu_seqlens": torch.tensor(bounds), "return_varlen_states": True}
    again, final, states = mamba_chunk_scan_combined(**inputs, **options, return_final_states=True)
    assert torch.equal(again, y)
    for i, (start, end) in enumerate(itertools.pairwise(bounds)):
        alone = {name: t if name == "A" else t[:, start:end] for name, t in inputs.items()}
        assert_agree([states[i : i + 1]], [scan(**alone, dt_softplus=True)[1]], 1e-10)
    assert_agree([final], [states[-1:]], 1e-10)
    with pytest.raises(NotApplicableError, match="without seq_idx"):
        mamba_chunk_scan_combined(**inputs, **(options | {"seq_idx": None}))


def test_scan_in_bf16_rounds_at_the_end_only() -> None:
    inputs = scan_inputs(per_channel=True)
    with torch.no_grad():
        low = {n: t.bfloat16() if n in ("x", "dt", "B", "C", "z") else t.float() for n, t in inputs.items()}
        y = mamba_chunk_scan_combined(**low, chunk_size=4, dt_softplus=True)
        assert y.dtype == torch.bfloat16
        assert_agree([y], [scan(**{n: t.double() for n, t in low.items()}, dt_softplus=True)[0]], 0.01)


def update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """y and the new state, where each channel of a head has its own step size and decay."""
    B, C = (maps.repeat_interleave(x.shape[1] // maps.shape[1], dim=1)[:, :, None] for maps in (B, C))
    dt = dt if dt_bias is None else dt + dt_bias
    dt = (F.softplus(dt) if dt_softplus else dt)[..., None]
    state = state * (dt * A).exp() + dt * x[..., None] * B
    y = (state * C).sum(-1)
    y = y if D is None else y + D * x
    return y if z is None else y * F.silu(z), state


def update_inputs(tied: bool, entries: int = BATCH, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """With `tied`, one A, dt, dt_bias and D per head, as views that repeat them; the state may be in `dtype`."""

    def per_head(tensor: Tensor) -> Tensor:
        return tensor[..., None].expand(*tensor.shape, HEADDIM) if tied else normal(*tensor.shape, HEADDIM)

    return {
        "state": normal(entries, HEADS, HEADDIM, DSTATE, dtype=dtype),
        "x": normal(BATCH, HEADS, HEADDIM),
        "dt": per_head(normal(BATCH, HEADS)),
        "A": -per_head(torch.rand(HEADS, dtype=torch.float64)).abs()[..., None].expand(HEADS, HEADDIM, DSTATE),
        "B": normal(BATCH, GROUPS, DSTATE),
        "C": normal(BATCH, GROUPS, DSTATE),
        "D": per_head(normal(HEADS)),
        "z": normal(BATCH, HEADS, HEADDIM),
        "dt_bias": per_head(normal(HEADS)),
    }


@pytest.mark.parametrize("absent", [(), ("z",), ("D", "z", "dt_bias")])
@pytest.mark.parametrize("dt_softplus", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_update(tied: bool, dt_softplus: bool, absent: tuple[str, ...]) -> None:
    inputs = {name: tensor for name, tensor in update_inputs(tied).items() if name not in absent}
    y, state = update(**inputs, dt_softplus=dt_softplus)
    assert_agree([selective_state_update(**inputs, dt_softplus=dt_softplus)], [y], 1e-12)
    assert_agree([inputs["state"]], [state], 1e-12)  # changed in place


def test_update_of_some_entries_and_of_none() -> None:
    inputs = update_inputs(tied=True, entries=5)
    before = inputs["state"].clone()
    y = selective_state_update(**inputs, state_batch_indices=torch.tensor([3, -1], dtype=torch.int32))
    expected, state = update(**inputs | {"state": before[[3, 0]]})
    assert_agree([y[:1], inputs["state"][3:4]], [expected[:1], state[:1]], 1e-12)
    assert not y[1].any()
    others = [0, 1, 2, 4]
    assert torch.equal(inputs["state"][others], before[others])


def test_update_without_the_axis_of_heads() -> None:
    inputs = update_inputs(tied=False)
    one = {name: t[0] if name in ("A", "D", "dt_bias") else t[:, 0] for name, t in inputs.items()}
    expected, state = update(**{n: t[None] if n in ("A", "D", "dt_bias") else t[:, None] for n, t in one.items()})
    one["state"] = one["state"].clone()
    assert_agree([selective_state_update(**one), one["state"]], [expected[:, 0], state[:, 0]], 1e-12)


def test_update_keeps_the_state_in_its_dtype_and_computes_in_fp32() -> None:
    inputs = {n: t.float() for n, t in update_inputs(tied=True).items()} | {
        "x": normal(BATCH, HEADS, HEADDIM).bfloat16()
    }
    inputs["state"] = inputs["state"].bfloat16()
    expected, state = update(**{name: tensor.double() for name, tensor in inputs.items()})
    y = selective_state_update(**inputs)
    assert y.dtype == inputs["state"].dtype == torch.bfloat16
    assert_agree([y, inputs["state"]], [expected, state], 2**-8)  # one rounding each


def test_update_refuses_mamba1() -> None:
    inputs = update_inputs(tied=True)
    inputs["A"] = -torch.rand(HEADS, HEADDIM, DSTATE, dtype=torch.float64)
    with pytest.raises(NotApplicableError, match="differs along dstate"):
        selective_state_update(**inputs)


def norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None,
    group_size: int,
    norm_before_gate: bool,
    is_rms_norm: bool,
) -> Tensor:
    x = x if z is None or norm_before_gate else x * F.silu(z)
    groups = x.unflatten(-1, (-1, group_size))
    if not is_rms_norm:
        groups = groups - groups.mean(-1, keepdim=True)
    y = (groups / (groups.square().mean(-1, keepdim=True) + 1e-6).sqrt()).flatten(-2) * weight
    y = y if bias is None else y + bias
    return y if z is None or not norm_before_gate else y * F.silu(z)


@pytest.mark.parametrize("is_rms_norm", [False, True])
@pytest.mark.parametrize("norm_before_gate", [False, True])
@pytest.mark.parametrize("absent", [(), ("bias",), ("z",), ("bias", "z")])
@pytest.mark.parametrize("group_size", [None, 4])
def test_norms(group_size: int | None, absent: tuple[str, ...], norm_before_gate: bool, is_rms_norm: bool) -> None:
    inputs = {"x": normal(2, 3, 8), "weight": normal(8), "bias": normal(8), "z": normal(2, 3, 8)}
    inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items() if name not in absent}
    every = {"bias": None, "z": None} | inputs
    options = {"group_size": group_size, "norm_before_gate": norm_before_gate}

    def ours() -> Tensor:
        return layernorm_fn(**every, **options, is_rms_norm=is_rms_norm)

    def theirs() -> Tensor:
        return norm(**every, group_size=group_size or 8, norm_before_gate=norm_before_gate, is_rms_norm=is_rms_norm)

    tensors = list(inputs.values())
    expected = outputs_and_gradients(theirs, tensors)
    assert_agree(outputs_and_gradients(ours, tensors), expected, 1e-12)
    if is_rms_norm:
        assert_agree([rmsnorm_fn(**every, **options)], expected[:1], 1e-12)
