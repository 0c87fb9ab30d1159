"""chunk_simple_gla on our scan against its recurrence, in fp64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.model.compare import assert_agree, outputs_and_gradients
from tests.peers.fla import chunk_simple_gla
from tests.peers.shim import NotApplicableError

BATCH, SEQLEN, HEADS, K, V = 2, 70, 3, 4, 5


def recurrence(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, scale: float, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    state, outputs = q.new_zeros(len(q), HEADS, K, V) if initial_state is None else initial_state, []
    for t in range(q.shape[1]):
        state = g[:, t].exp()[..., None, None] * state + k[:, t, :, :, None] * v[:, t, :, None]
        outputs.append(scale * (q[:, t, :, :, None] * state).sum(-2))
    return torch.stack(outputs, dim=1), state


def make_inputs(batch: int = BATCH, sequences: int = BATCH, seqlen: int = SEQLEN) -> dict[str, Tensor]:
    shapes = {"q": (K,), "k": (K,), "v": (V,), "g": ()}
    inputs = {name: torch.randn(batch, seqlen, HEADS, *last).double() for name, last in shapes.items()}
    inputs["g"] = F.logsigmoid(inputs["g"])
    inputs["initial_state"] = torch.randn(sequences, HEADS, K, V).double()
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("has_initial_state", [False, True])
@pytest.mark.parametrize("seqlen", [1, SEQLEN])
def test_gates(seqlen: int, has_initial_state: bool, scale: float | None) -> None:
    inputs = make_inputs(seqlen=seqlen)
    if not has_initial_state:
        del inputs["initial_state"]
    tensors, factor = list(inputs.values()), 1 / math.sqrt(K) if scale is None else scale

    def theirs() -> tuple[Tensor, Tensor]:
        return recurrence(**{"initial_state": None} | inputs, scale=factor)

    actual = outputs_and_gradients(lambda: chunk_simple_gla(**inputs, scale=scale, output_final_state=True), tensors)
    assert_agree(actual, outputs_and_gradients(theirs, tensors), 1e-10)
    o, none = chunk_simple_gla(**inputs, scale=scale)
    assert none is None
    assert_agree([o], actual[:1], 1e-12)


@pytest.mark.parametrize("gated", [False, True])
def test_the_same_gate_at_every_position_and_no_gate(gated: bool) -> None:
    inputs = make_inputs()
    del inputs["g"]
    gamma = F.logsigmoid(torch.randn(HEADS).double()).requires_grad_() if gated else None
    tensors = [*inputs.values(), *([gamma] if gated else [])]

    def theirs() -> tuple[Tensor, Tensor]:
        g = torch.zeros(HEADS).double() if gamma is None else gamma
        return recurrence(**inputs, g=g.expand(BATCH, SEQLEN, HEADS), scale=1)

    def ours() -> tuple[Tensor, ...]:
        return chunk_simple_gla(**inputs, g_gamma=gamma, scale=1, output_final_state=True)

    assert_agree(outputs_and_gradients(ours, tensors), outputs_and_gradients(theirs, tensors), 1e-10)


def test_packed_sequences() -> None:
    bounds = [0, 1, 30, SEQLEN]
    inputs = make_inputs(batch=1, sequences=3)
    tensors = list(inputs.values())

    def theirs() -> tuple[Tensor, Tensor]:
        parts = [
            recurrence(**{n: t[i : i + 1] if n == "initial_state" else t[:, a:b] for n, t in inputs.items()}, scale=1)
            for i, (a, b) in enumerate(itertools.pairwise(bounds))
        ]
        return torch.cat([o for o, _ in parts], dim=1), torch.cat([state for _, state in parts])

    def ours() -> tuple[Tensor, ...]:
        return chunk_simple_gla(**inputs, cu_seqlens=torch.tensor(bounds), scale=1, output_final_state=True)

    assert_agree(outputs_and_gradients(ours, tensors), outputs_and_gradients(theirs, tensors), 1e-10)
    with pytest.raises(ValueError, match="3 initial states for 1 sequences"):
        chunk_simple_gla(**inputs, cu_seqlens=torch.tensor([0, SEQLEN]))


def test_states_with_v_first() -> None:
    inputs = make_inputs()
    o, final = chunk_simple_gla(**inputs, output_final_state=True)
    inputs["initial_state"] = inputs["initial_state"].transpose(-1, -2)
    again, turned = chunk_simple_gla(**inputs, output_final_state=True, state_v_first=True)
    assert_agree([again, turned], [o, final.transpose(-1, -2)], 0)


@pytest.mark.parametrize("chunk_size", [16, 64])
def test_chunk_sizes(chunk_size: int) -> None:
    inputs = make_inputs()
    expected = chunk_simple_gla(**inputs, output_final_state=True)
    assert_agree(chunk_simple_gla(**inputs, output_final_state=True, chunk_size=chunk_size), expected, 1e-10)


def test_fp32_where_gates_are_weak() -> None:
    """Ten times as weak as fla's tests make them: v / g and what its gradient cancels leave digits enough."""
    inputs = {name: tensor.detach() for name, tensor in make_inputs().items()}
    inputs["g"] = inputs["g"] / 100
    low = {name: tensor.float().requires_grad_() for name, tensor in inputs.items()}
    exact = {name: tensor.double().detach().requires_grad_() for name, tensor in low.items()}
    actual = outputs_and_gradients(
        lambda: chunk_simple_gla(**low, scale=1, output_final_state=True), list(low.values())
    )
    assert_agree(actual, outputs_and_gradients(lambda: recurrence(**exact, scale=1), list(exact.values())), 1e-4)


def test_what_is_refused() -> None:
    inputs = make_inputs()
    with pytest.raises(DeprecationWarning, match="head_first"):
        chunk_simple_gla(**inputs, head_first=False)
    with pytest.raises(NotApplicableError, match="the arguments cp_context"):
        chunk_simple_gla(**inputs, cp_context=None)
    with pytest.raises(ValueError, match="chunk_size is 48"):
        chunk_simple_gla(**inputs, chunk_size=48)
    with pytest.raises(NotApplicableError, match="gates of 0"):
        chunk_simple_gla(**inputs | {"g": torch.zeros(BATCH, SEQLEN, HEADS)})
