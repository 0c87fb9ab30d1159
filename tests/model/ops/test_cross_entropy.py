"""The linear cross-entropy against all logits at once."""

import math

import pytest
import torch
from torch import Tensor

from model.ops._common import Backend
from model.ops.cross_entropy import IGNORED, linear_cross_entropy
from model.ops.cross_entropy import torch as blocks
from tests.model.compare import assert_agree, outputs_and_gradients


def make_inputs(device: torch.device, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    hidden = torch.randn(23, 6, dtype=dtype, device=device, requires_grad=True)
    weight = torch.randn(11, 6, dtype=dtype, device=device, requires_grad=True)
    targets = torch.randint(0, 11, (23,), device=device)
    targets[::4] = IGNORED
    return hidden, weight, targets


@pytest.mark.parametrize(("logits_per_block", "at_once"), [(1, 1), (40, 25), (2**20, 25), (2**20, 2**20)])
def test_agrees_with_all_logits(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, logits_per_block: int, at_once: int
) -> None:
    monkeypatch.setattr(blocks, "LOGITS_PER_BLOCK", logits_per_block)
    monkeypatch.setattr(blocks, "LOGITS_AT_ONCE", at_once)
    hidden, weight, targets = make_inputs(device)

    def run(backend: str) -> list[Tensor]:
        return outputs_and_gradients(
            lambda: linear_cross_entropy(hidden, weight, targets, backend=backend), [hidden, weight]
        )

    assert_agree(run("torch"), run("reference"), 1e-12)


def test_the_gradient_of_a_weight_in_fp32_is_not_rounded(device: torch.device) -> None:
    hidden, weight, targets = make_inputs(device, torch.float32)
    hidden = hidden.detach().bfloat16().requires_grad_()
    (gradient,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets), [weight])
    rounded = weight.detach().bfloat16().requires_grad_()
    (expected,) = torch.autograd.grad(linear_cross_entropy(hidden, rounded, targets), [rounded])
    assert gradient.dtype is torch.float32
    assert torch.equal(gradient.bfloat16(), expected)
    assert not torch.equal(gradient, expected.float())


@pytest.mark.parametrize("fresh", [False, True])
def test_products_are_summed_in_the_precision_of_the_sum(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    monkeypatch.setattr(blocks, "WEIGHTS_AT_ONCE", 13)  # two rows of six
    a, b = (torch.randn(23, width, device=device, dtype=torch.bfloat16) for width in (11, 6))
    total = torch.full((11, 6), float("nan")) if fresh else 1e3 * torch.randn(11, 6)
    total = total.to(device)
    expected = a.double().t() @ b.double() + (0 if fresh else total.double())
    blocks.add_product(total, a, b, fresh)
    # a product of bf16 is rounded once (2^-9 of some 15); a sum in bf16 would be wrong by 2^-9 of 1e3
    assert_agree([total.double()], [expected], 1e-1 / expected.abs().max().item())


def test_no_target_counts(device: torch.device) -> None:
    hidden, weight, targets = make_inputs(device)
    loss = linear_cross_entropy(hidden, weight, torch.full_like(targets, IGNORED))
    loss.backward()
    assert loss == 0
    assert not hidden.grad.any()
    assert not weight.grad.any()


@pytest.mark.parametrize("backend", ["torch", "auto", "reference"])
def test_what_is_not_finite_where_no_target_counts_is_no_loss(device: torch.device, backend: Backend) -> None:
    hidden, weight, targets = make_inputs(device, torch.float32)
    expected = linear_cross_entropy(hidden, weight, targets, backend="reference")
    broken = hidden.detach().clone()
    broken[0], broken[4] = math.nan, math.inf
    assert_agree([linear_cross_entropy(broken, weight.detach(), targets, backend=backend)], [expected], 1e-6)


def test_without_gradients(device: torch.device) -> None:
    hidden, weight, targets = make_inputs(device)
    with torch.no_grad():
        assert_agree(
            [linear_cross_entropy(hidden, weight, targets)],
            [linear_cross_entropy(hidden, weight, targets, backend="reference")],
            1e-12,
        )


def test_gradcheck(device: torch.device) -> None:
    hidden, weight, targets = make_inputs(device)
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets), (hidden, weight))


def test_operator(device: torch.device) -> None:
    torch.library.opcheck(
        torch.ops.mamba2.linear_cross_entropy.default, (*make_inputs(device, torch.float32), True, "torch")
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_keeps_the_softmax_in_fp32(device: torch.device, dtype: torch.dtype) -> None:
    """On multiples of 1/2 below 128, which both dtypes hold, so that logits written in them are exact.

    Of others, up to s, rounding is worth s eps / 2 of a probability: more than the rest together.
    """
    hidden, weight, targets = (tensor.detach() for tensor in make_inputs(device, torch.float32))
    inputs = [tensor.to(dtype).requires_grad_() for tensor in ((hidden * 5).round(), (weight * 2).round() / 2)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    logits = exact[0] @ exact[1].t()
    assert torch.equal(logits.to(dtype).double(), logits)
    ours, truth = (
        outputs_and_gradients(lambda tensors=tensors: linear_cross_entropy(*tensors, targets), tensors)
        for tensors in (inputs, exact)
    )
    assert ours[0].dtype == torch.float32
    assert_agree(ours[:1], truth[:1], 1e-6)
    # The gradients of logits, then their products, are rounded once; those that cancel in a product add up to about
    # as much as is left
    assert_agree(ours[1:], truth[1:], 2 * torch.finfo(dtype).eps)


def test_a_target_that_is_very_unlikely_has_a_finite_loss(device: torch.device) -> None:
    hidden, weight = torch.tensor([[1.0]], device=device), torch.tensor([[0.0], [200.0], [90.0]], device=device)
    for target, expected in ((0, 200.0), (1, 0.0), (2, 110.0)):
        assert linear_cross_entropy(hidden, weight, torch.tensor([target], device=device)) == expected


def test_no_rows(device: torch.device) -> None:
    hidden, weight, targets = make_inputs(device)
    loss = linear_cross_entropy(hidden[:0], weight, targets[:0])
    loss.backward()
    assert loss == 0
    assert not weight.grad.any()


def test_a_head_of_no_tokens_is_an_error(device: torch.device) -> None:
    hidden, weight, targets = make_inputs(device)
    with pytest.raises(ValueError, match="weight has no rows"):
        linear_cross_entropy(hidden, weight[:0], targets)
