"""causal_conv1d's functions on our operator against sums over taps, in fp64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.model.compare import assert_agree, outputs_and_gradients
from tests.peers.causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from tests.peers.shim import NotApplicableError

BATCH, DIM, SEQLEN = 2, 5, 7


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor | None, activation: str | None, seq_idx: Tensor | None
) -> Tensor:
    """y of x (batch, dim, seqlen): a tap per earlier position, none across documents or from padding."""
    width, seqlen = weight.shape[1], x.shape[-1]
    start = x.new_zeros(*x.shape[:2], width - 1) if start is None else start
    inputs, outputs = torch.cat([start, x], dim=-1), []
    for t in range(seqlen):
        total = torch.zeros_like(x[..., 0]) if bias is None else bias.expand(x.shape[:2])
        for back in range(width):
            seen = weight[:, -1 - back] * inputs[..., width - 1 + t - back]
            if seq_idx is not None and t >= back:
                seen = seen * (seq_idx[:, t] == seq_idx[:, t - back])[:, None]
            total = total + seen
        total = total if activation is None else F.silu(total)
        outputs.append(total if seq_idx is None else total * (seq_idx[:, t] >= 0)[:, None])
    return torch.stack(outputs, dim=-1)


def make_inputs(width: int, seqlen: int = SEQLEN, channels_last: bool = False) -> dict[str, Tensor]:
    x, start = torch.randn(BATCH, seqlen, DIM).double(), torch.randn(BATCH, width - 1, DIM).double()
    x, start = x.transpose(1, 2), start.transpose(1, 2)
    return {
        "x": (x if channels_last else x.contiguous()).requires_grad_(),
        "weight": torch.randn(DIM, width).double().requires_grad_(),
        "bias": torch.randn(DIM).double().requires_grad_(),
        "initial_states": start.requires_grad_(),
    }


@pytest.mark.parametrize("activation", [None, "silu", "swish"])
@pytest.mark.parametrize("absent", [(), ("bias",), ("initial_states",)])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("width", "seqlen"), [(2, 1), (3, SEQLEN), (4, 2), (4, SEQLEN)])
def test_fn(width: int, seqlen: int, channels_last: bool, absent: tuple[str, ...], activation: str | None) -> None:
    made = make_inputs(width, seqlen, channels_last)
    inputs = {name: tensor for name, tensor in made.items() if name not in absent}
    tensors = list(inputs.values())

    def ours() -> tuple[Tensor, ...]:
        return causal_conv1d_fn(**inputs, activation=activation, return_final_states=True)

    def theirs() -> tuple[Tensor, ...]:
        x, start = inputs["x"], inputs.get("initial_states")
        y = convolve(x, inputs["weight"], inputs.get("bias"), start, activation, None)
        earlier = x.new_zeros(BATCH, DIM, width - 1) if start is None else start
        return y, torch.cat([earlier, x], dim=-1)[..., -(width - 1) :]

    expected = outputs_and_gradients(theirs, tensors)
    assert_agree(outputs_and_gradients(ours, tensors), expected, 1e-12)
    assert_agree([causal_conv1d_fn(**inputs, activation=activation)], expected[:1], 1e-12)


def test_fn_writes_final_states() -> None:
    inputs = make_inputs(4)
    out = torch.empty(BATCH, DIM, 3, dtype=torch.float64)
    _, final = causal_conv1d_fn(**inputs, return_final_states=True, final_states_out=out)
    assert final is out
    assert torch.equal(out, inputs["x"][..., -3:])


@pytest.mark.parametrize("width", [2, 3, 4])
def test_fn_of_packed_sequences_and_padding(width: int) -> None:
    inputs = make_inputs(width, channels_last=True)
    del inputs["initial_states"]
    seq_idx = torch.tensor([[0, 0, 0, 1, 2, 2, 2], [3, 4, 4, 4, 4, -1, -1]], dtype=torch.int32)
    tensors = list(inputs.values())

    def theirs() -> Tensor:
        return convolve(*tensors, None, "silu", seq_idx)

    actual = outputs_and_gradients(lambda: causal_conv1d_fn(**inputs, seq_idx=seq_idx, activation="silu"), tensors)
    assert_agree(actual, outputs_and_gradients(theirs, tensors), 1e-12)
    with pytest.raises(NotApplicableError, match="packed"):
        causal_conv1d_fn(**inputs, seq_idx=seq_idx, return_final_states=True)


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("seqlen", [None, 1, 3, 5])
@pytest.mark.parametrize(("width", "length"), [(2, 1), (4, 3), (3, 6)])
def test_update(
    width: int, length: int, seqlen: int | None, ring: bool, has_bias: bool, activation: str | None
) -> None:
    """The new inputs behind all that were there, of which the buffer holds the last ones, in order or as a ring."""
    steps = seqlen or 1
    weight, bias = torch.randn(DIM, width).double(), torch.randn(DIM).double() if has_bias else None
    past, x = torch.randn(BATCH, DIM, 10).double(), torch.randn(BATCH, DIM, steps).double()
    so_far = torch.tensor([10, 7], dtype=torch.int32)
    buffer = torch.full((BATCH, DIM, length), torch.nan, dtype=torch.float64)

    def fill(inputs: Tensor, row: int, count: int) -> None:
        for place in range(length):  # of the ring: the newest input whose number leaves this rest
            number = max((n for n in range(count) if n % length == place), default=None)
            if number is not None:
                buffer[row, :, place] = inputs[row, :, number]

    history = [past[row, :, : so_far[row] if ring else 10] for row in range(BATCH)]
    whole = [torch.cat([history[row], x[row]], dim=-1) for row in range(BATCH)]
    for row in range(BATCH):
        if ring:
            fill(past, row, int(so_far[row]))
        else:
            buffer[row] = history[row][:, -length:]
    y = causal_conv1d_update(
        *(x if seqlen else x[..., 0], buffer, weight, bias),
        activation=activation,
        cache_seqlens=so_far if ring else None,
    )
    expected = [convolve(row[None], weight, bias, None, activation, None)[0, :, -steps:] for row in whole]
    assert_agree([y if seqlen else y[..., None]], [torch.stack(expected)], 1e-12)

    actual = buffer.clone()
    for row in range(BATCH):
        if ring:
            for place in range(length):
                number = max(n for n in range(whole[row].shape[-1]) if n % length == place)
                buffer[row, :, place] = whole[row][:, number]
        else:
            buffer[row] = whole[row][:, -length:]
    assert torch.equal(actual, buffer)


@pytest.mark.parametrize("ring", [False, True])
def test_update_of_some_entries_and_of_none(ring: bool) -> None:
    weight, bias, x = torch.randn(DIM, 4).double(), torch.randn(DIM).double(), torch.randn(BATCH, DIM, 2).double()
    buffer = torch.randn(6, DIM, 5).double()
    before, so_far = buffer.clone(), torch.tensor([8, 9], dtype=torch.int32) if ring else None
    indices = torch.tensor([4, -1], dtype=torch.int32)
    y = causal_conv1d_update(x, buffer, weight, bias, "silu", cache_seqlens=so_far, conv_state_indices=indices)
    alone = before[4:5].clone()
    expected = causal_conv1d_update(x[:1], alone, weight, bias, "silu", cache_seqlens=so_far[:1] if ring else None)
    assert_agree([y[:1], buffer[4:5]], [expected, alone], 0)
    assert not y[1].any()
    others = [0, 1, 2, 3, 5]
    assert torch.equal(buffer[others], before[others])


def test_other_activations_are_refused() -> None:
    inputs = make_inputs(3)
    with pytest.raises(NotApplicableError, match="relu"):
        causal_conv1d_fn(**inputs, activation="relu")
