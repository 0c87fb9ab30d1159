"""The cross-entropy in C against all logits at once in fp64."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from model.ops._common import Backend
from model.ops.cross_entropy import IGNORED, linear_cross_entropy, native
from tests.model.compare import error, outputs_and_gradients

pytestmark = pytest.mark.skipif(not native.works(), reason="no C compiler here")


def make(rows: int, vocab: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """hidden, in the dtype, weight and targets."""
    targets = torch.randint(0, vocab, (rows,))
    targets[torch.arange(rows) % 3 == 1] = IGNORED
    hidden, weight = torch.randn(rows, 24).to(dtype), torch.randn(vocab, 24)
    return hidden.requires_grad_(), weight.requires_grad_(), targets


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_those_of_the_definition(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most twice the error of torch in that precision, and a few roundings more."""
    draw = random.Random(0)
    rounding = {torch.float32: 2e-6, torch.bfloat16: 2.0**-8}[dtype]
    for _ in range(30):
        monkeypatch.setitem(native.ROWS, dtype, draw.choice([1, 7, 256]))
        rows, vocab = draw.choice([1, 2, 33]), draw.choice([1, 2, 15, 100, 1024, 2500])
        hidden, weight, targets = make(rows, vocab, dtype)
        exact = (hidden.detach().double(), weight.detach().to(dtype).double())
        truths, ours, others = (
            outputs_and_gradients(
                lambda tensors=tensors, backend=backend, targets=targets: linear_cross_entropy(
                    *tensors, targets, backend=backend
                ),
                tensors,
            )
            for tensors, backend in (
                ([tensor.requires_grad_() for tensor in exact], "reference"),
                ([hidden, weight], "native"),
                ([hidden, weight], "torch"),
            )
        )
        for name, truth, mine, other in zip(["loss", "hidden", "weight"], truths, ours, others, strict=True):
            assert error(mine, truth) <= 2 * error(other, truth) + rounding, f"{name}: {error(mine, truth):.1e}"


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    hidden, weight, targets = make(100, 300, torch.bfloat16)
    logits, found = (hidden @ weight.t().bfloat16()).detach(), []
    for threads in (1, 2, 5):
        block, losses, rooms = logits.clone(), torch.empty(100), torch.empty(threads, 300)
        native._losses(block, targets.masked_fill(targets == IGNORED, -1), True, losses, rooms)
        found.append((block, losses))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_it_is_what_a_cpu_takes_except_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make(50, 700, torch.bfloat16)
    native_loss, torch_loss = (linear_cross_entropy(*inputs, backend=backend) for backend in ("native", "torch"))
    assert torch.equal(linear_cross_entropy(*inputs), native_loss)
    with pytest.raises(ValueError, match="backend is 'native': this operator has no such kernel"):
        linear_cross_entropy(*make(5, 7, torch.float16), backend="native")
    monkeypatch.setattr(native.works, "answer", False)
    assert torch.equal(linear_cross_entropy(*inputs), torch_loss)


def test_targets_that_are_no_tokens() -> None:
    hidden, weight, targets = make(5, 7, torch.float32)
    for wrong in (7, -1 + IGNORED):
        targets[0] = wrong
        with pytest.raises(ValueError, match="token ids outside of the 7 of the head"):
            linear_cross_entropy(hidden, weight, targets, backend="native")


def test_logits_that_are_large_or_not_finite() -> None:
    weight = torch.tensor([[0.0], [1.0], [-1.0]])
    for value, target, expected in ((1e30, 1, 0.0), (1e30, 2, 2e30), (200.0, 0, 200.0)):
        hidden = torch.tensor([[value]])
        assert linear_cross_entropy(hidden, weight, torch.tensor([target]), backend="native") == expected
    for value in (math.inf, math.nan):
        hidden = torch.tensor([[value]])
        assert linear_cross_entropy(hidden, weight, torch.tensor([1]), backend="native").isnan()


def test_the_operator_keeps_its_promises() -> None:
    torch.library.opcheck(torch.ops.mamba2.linear_cross_entropy.default, (*make(5, 7, torch.bfloat16), True, "native"))


def test_code_that_computes_something_else_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    right = native.forward
    monkeypatch.setattr(native, "forward", lambda *arguments: (right(*arguments)[0] * 1.1, *right(*arguments)[1:]))
    with pytest.warns(UserWarning, match="the slower torch path is used"):
        assert not native.works.ask()


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_targets_of_another_integer_type(backend: Backend) -> None:
    hidden, weight, _ = make(4, 300, torch.float32)
    targets = torch.tensor([156, 3, 5, 200])  # 156 is -100 in a byte
    expected = linear_cross_entropy(hidden, weight, targets, backend=backend)
    for dtype in (torch.int32, torch.int16, torch.uint8):
        assert linear_cross_entropy(hidden, weight, targets.to(dtype), backend=backend) == expected
    with pytest.raises(ValueError, match="must be token ids"):
        linear_cross_entropy(hidden, weight, targets.float(), backend=backend)


@pytest.mark.parametrize("target", [-1, -101, 50, 2**40])
def test_a_target_that_is_no_token_is_an_error(target: int) -> None:
    hidden, weight, targets = make(9, 50, torch.float32)
    targets[4] = target
    with pytest.raises(ValueError, match="token ids outside of the 50 of the head"):
        linear_cross_entropy(hidden, weight, targets, backend="native")


def test_defaults_of_torch_change_nothing() -> None:
    hidden, weight, targets = torch.randn(4, 8), torch.randn(9, 8, requires_grad=True), torch.arange(4)
    expected = linear_cross_entropy(hidden, weight, targets, backend="native")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            loss = linear_cross_entropy(hidden, weight, targets, backend="native")
    finally:
        torch.set_default_dtype(torch.float32)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
