"""The causal convolution in C against PyTorch's conv1d in fp64."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from model.ops.causal_conv1d import causal_conv1d, native
from tests.model.compare import error, outputs_and_gradients

pytestmark = pytest.mark.skipif(not native.works(), reason="no C compiler here")


def make(draw: random.Random, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Inputs of random sizes and options."""
    batch, width = draw.randint(1, 3), draw.randint(2, native.MOST_TAPS)
    seqlen = draw.choice([1, 2, native.POSITIONS - 1, native.POSITIONS, native.POSITIONS + 1, 150])
    channels = draw.choice([1, 7, 130, 700])
    inputs = {
        "x": torch.randn(batch, seqlen, channels).to(dtype),
        "weight": torch.randn(channels, width),
        "bias": torch.randn(channels),
        "initial_state": torch.randn(batch, width - 1, channels).to(dtype),
    }
    for name in ("bias", "initial_state"):
        if draw.random() < 0.4:
            del inputs[name]
    options: dict[str, Any] = {"activation": draw.choice(["silu", None])}
    if draw.random() < 0.5:
        options["seq_idx"] = torch.randint(0, 3, (batch, seqlen), dtype=torch.int32).sort(dim=1).values
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}, options


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_outputs_and_gradients_are_those_of_conv1d(dtype: torch.dtype) -> None:
    """At most twice the error of torch in that precision, and a few roundings more."""
    draw = random.Random(0)
    rounding = {torch.float32: 2e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype]
    for _ in range(40):
        inputs, options = make(draw, dtype)
        exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
        truths, ours, others = (
            outputs_and_gradients(
                lambda tensors=tensors, backend=backend, options=options: causal_conv1d(
                    **tensors, **options, backend=backend
                ),
                list(tensors.values()),
            )
            for tensors, backend in ((exact, "reference"), (inputs, "native"), (inputs, "torch"))
        )
        for name, truth, mine, other in zip(["y", *inputs], truths, ours, others, strict=True):
            assert error(mine, truth) <= 2 * error(other, truth) + rounding, f"{name}: {error(mine, truth):.1e}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_the_number_of_threads(dtype: torch.dtype) -> None:
    inputs, options = make(random.Random(6), dtype)
    found: list[list[Tensor]] = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(outputs_and_gradients(lambda: causal_conv1d(**inputs, **options), list(inputs.values())))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_the_operator_keeps_its_promises() -> None:
    inputs, options = make(random.Random(0), torch.float32)
    arguments = [inputs.get(name) for name in ("x", "weight", "bias", "initial_state")]
    torch.library.opcheck(
        torch.ops.mamba2.causal_conv1d.default, (*arguments, options.get("seq_idx"), "silu", "native")
    )


def test_code_that_computes_something_else_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    right = native.forward
    monkeypatch.setattr(native, "forward", lambda *arguments: right(*arguments) * 1.01)
    with pytest.warns(UserWarning, match="the slower torch path is used"):
        assert not native.works.ask()


def test_values_that_are_large_or_not_finite() -> None:
    x = torch.tensor([-1e38, -3e38, 3e38, -100.0, 100.0, math.inf, -math.inf, math.nan]).view(1, -1, 1)
    weight = torch.tensor([[0.0, 1.0]])
    ours, theirs = (causal_conv1d(x, weight, backend=backend) for backend in ("native", "torch"))
    finite = slice(0, 5)
    assert torch.allclose(ours[:, finite], theirs[:, finite], rtol=1e-6)
    assert torch.equal(ours[:, 5:].isnan() | ours[:, 5:].isinf(), theirs[:, 5:].isnan() | theirs[:, 5:].isinf())
