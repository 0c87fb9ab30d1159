"""The cross-entropy's Triton kernel: interpreted where there is no GPU, against all logits in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from model.ops.cross_entropy import IGNORED, linear_cross_entropy, selfcheck
from tests.model.compare import as_good, assert_agree, outputs_and_gradients
from tests.model.cover import label, pairwise

AXES = {
    "dtype": [torch.float32, torch.bfloat16, torch.float16],
    "rows": [1, 4, 11],
    "vocab": [1, 2, 63, 64, 65, 131, 300],
    "d": [1, 24],
    "ignored": ["none", "some", "all"],
    "weight": ["plain", "view"],
    "sharp": [False, True],
}
USUAL = {"dtype": torch.bfloat16, "rows": 11, "vocab": 131, "d": 24, "ignored": "some"} | {
    "weight": "plain",
    "sharp": False,
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of rows and several tiles of a row, on inputs that take an interpreter little time."""
    from model.ops.cross_entropy import triton

    monkeypatch.setattr(triton, "LOGITS_PER_BLOCK", 600)
    monkeypatch.setattr(triton, "ROWS", 4)
    monkeypatch.setattr(triton, "TILE", 64)


def make(case: dict, device: torch.device) -> tuple[list[Tensor], Tensor]:
    rows, vocab, d = case["rows"], case["vocab"], case["d"]
    hidden = torch.randn(rows, d, device=device) * (30 if case["sharp"] else 1)
    weight = torch.randn(vocab, d + 3, device=device) / d**0.5
    weight = weight.to(case["dtype"])[:, :d]
    if case["weight"] == "plain":
        weight = weight.contiguous()
    targets = torch.randint(0, vocab, (rows,), device=device)
    targets[0], targets[-1] = vocab - 1, 0
    if case["ignored"] == "some":
        targets[1::3] = IGNORED
    elif case["ignored"] == "all":
        targets[:] = IGNORED
    return [hidden.to(case["dtype"]).requires_grad_(), weight.requires_grad_()], targets


@pytest.mark.parametrize("case", pairwise(AXES), ids=label)
def test_loss_and_gradients_are_those_of_all_logits(case: dict, device: torch.device) -> None:
    inputs, targets = make(case, device)

    def run(tensors: list[Tensor], backend: str) -> list[Tensor]:
        return outputs_and_gradients(
            lambda: linear_cross_entropy(*tensors, targets, backend=backend),  # type: ignore[arg-type]
            tensors,
        )

    ours, torchs = run(inputs, "triton"), run(inputs, "torch")
    exact = run([tensor.detach().double().requires_grad_() for tensor in inputs], "reference")
    assert ours[0].dtype == torch.float32
    for name, *tensors in zip(["loss", "d_hidden", "d_weight"], ours, torchs, exact, strict=True):
        as_good(name, *tensors)


def test_a_vocabulary_of_several_real_tiles(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    from model.ops.cross_entropy import triton

    monkeypatch.setattr(triton, "TILE", 4096)
    monkeypatch.setattr(triton, "LOGITS_PER_BLOCK", 2**27)
    test_loss_and_gradients_are_those_of_all_logits(USUAL | {"rows": 3, "vocab": 9001}, device)


def test_runs_are_bitwise_the_same(device: torch.device) -> None:
    inputs, targets = make(USUAL, device)
    first, second = (
        outputs_and_gradients(lambda: linear_cross_entropy(*inputs, targets, backend="triton"), inputs)
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_without_gradients_the_loss_is_the_same(device: torch.device) -> None:
    inputs, targets = make(USUAL, device)
    with torch.no_grad():
        alone = linear_cross_entropy(*inputs, targets, backend="triton")
    assert torch.equal(alone, linear_cross_entropy(*inputs, targets, backend="triton"))


@pytest.mark.filterwarnings("ignore:overflow encountered in subtract")  # of the interpreter
def test_logits_of_any_size_do_not_overflow(device: torch.device) -> None:
    hidden = torch.tensor([[1e4], [-1e4], [3e38]], device=device)
    weight, targets = torch.linspace(-1, 1, 131, device=device).unsqueeze(1), torch.tensor([130, 0, 0], device=device)
    with torch.no_grad():
        losses = [linear_cross_entropy(hidden[:2], weight, targets[:2], backend=path) for path in ("triton", "torch")]
        largest = linear_cross_entropy(hidden[2:], weight, targets[2:], backend="triton")
    assert losses[0] == losses[1] == 0
    assert largest == math.inf  # 6e38 is beyond fp32


def test_a_target_that_is_no_token_is_seen_in_the_loss(device: torch.device) -> None:
    inputs, targets = make(USUAL, device)
    targets[3] = USUAL["vocab"]
    with torch.no_grad():
        assert linear_cross_entropy(*inputs, targets, backend="triton").isnan()


def test_the_mean_is_over_what_counts(device: torch.device) -> None:
    inputs, targets = make(USUAL | {"dtype": torch.float32}, device)
    counted = targets != IGNORED
    with torch.no_grad():
        whole = linear_cross_entropy(*inputs, targets, backend="triton")
        part = linear_cross_entropy(inputs[0][counted], inputs[1], targets[counted], backend="triton")
    assert_agree([whole], [part], 1e-6)


@pytest.mark.parametrize("with_gradients", [False, True])
def test_the_operator_keeps_its_promises(with_gradients: bool, device: torch.device) -> None:
    inputs, targets = make(USUAL, device)
    if not with_gradients:
        inputs = [tensor.detach() for tensor in inputs]
    torch.library.opcheck(torch.ops.mamba2.linear_cross_entropy.default, (*inputs, targets, with_gradients, "triton"))


def test_inputs_that_kernels_do_not_take_are_told(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, targets = make(USUAL, device)
    for refused in ([tensor.double() for tensor in inputs], [inputs[0][:0], inputs[1]]):
        wanted = targets[: len(refused[0])]
        with pytest.raises(ValueError, match="backend is 'triton': this operator has no such kernel"):
            linear_cross_entropy(*refused, wanted, backend="triton")
        monkeypatch.setenv("MAMBA2_BACKEND", "triton")  # it only asks: torch takes what Triton does not
        assert torch.equal(
            linear_cross_entropy(*refused, wanted), linear_cross_entropy(*refused, wanted, backend="torch")
        )
        monkeypatch.delenv("MAMBA2_BACKEND")


@pytest.mark.parametrize("fault", ["wrong", "fails"])
def test_kernels_that_are_wrong_or_fail_are_left(
    device: torch.device, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model.ops.cross_entropy import triton

    right = triton.forward
    arguments = (str(device), torch.bfloat16)
    assert selfcheck._passes.__wrapped__(*arguments)

    def forward(*inputs: object, **options: object) -> tuple[Tensor, ...]:
        if fault == "fails":
            raise RuntimeError("out of resources")
        loss, *others = right(*inputs, **options)
        return loss * 1.05, *others

    monkeypatch.setattr(triton, "forward", forward)
    with pytest.warns(UserWarning, match="the slower torch path is used"):
        assert not selfcheck._passes.__wrapped__(*arguments)
