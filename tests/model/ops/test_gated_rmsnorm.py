"""The gated RMSNorm against its definition."""

import pytest
import torch
from torch import Tensor

from model.ops.gated_rmsnorm import gated_rmsnorm
from tests.model.compare import assert_agree, outputs_and_gradients


def make_inputs(device: torch.device, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    shapes = {"x": (2, 3, 8), "weight": (8,), "gate": (2, 3, 8)}
    return {name: torch.randn(shape, dtype=dtype, device=device, requires_grad=True) for name, shape in shapes.items()}


@pytest.mark.parametrize("norm_before_gate", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("group_size", [None, 8, 4, 2])
def test_agrees_with_the_definition(
    device: torch.device, group_size: int | None, gated: bool, norm_before_gate: bool
) -> None:
    inputs = make_inputs(device)
    if not gated:
        del inputs["gate"]

    def run(backend: str) -> list[Tensor]:
        def call() -> Tensor:
            return gated_rmsnorm(**inputs, group_size=group_size, norm_before_gate=norm_before_gate, backend=backend)

        return outputs_and_gradients(call, list(inputs.values()))

    assert_agree(run("torch"), run("reference"), 1e-12)
    with torch.no_grad():
        values = gated_rmsnorm(**inputs, group_size=group_size, norm_before_gate=norm_before_gate)
    assert_agree([values], [run("reference")[0]], 1e-12)


@pytest.mark.parametrize("norm_before_gate", [False, True])
def test_one_row(device: torch.device, norm_before_gate: bool) -> None:
    """Without a dimension of rows."""
    inputs = {name: tensor.detach() for name, tensor in make_inputs(device).items()}
    x, gate = inputs["x"][0, 0], inputs["gate"][0, 0]

    def run(*shape: int) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in (x.view(shape), inputs["weight"], gate.view(shape))]
        options = {"gate": leaves[2], "group_size": 4, "norm_before_gate": norm_before_gate}
        return [t.flatten() for t in outputs_and_gradients(lambda: gated_rmsnorm(*leaves[:2], **options), leaves)]

    torch.manual_seed(0)
    alone = run(8)
    torch.manual_seed(0)
    assert_agree(alone, run(1, 8), 1e-12)


@pytest.mark.parametrize("norm_before_gate", [False, True])
def test_gradcheck(device: torch.device, norm_before_gate: bool) -> None:
    def call(x: Tensor, weight: Tensor, gate: Tensor) -> Tensor:
        return gated_rmsnorm(x, weight, gate=gate, group_size=4, norm_before_gate=norm_before_gate)

    assert torch.autograd.gradcheck(call, tuple(make_inputs(device).values()))


def test_operator(device: torch.device) -> None:
    arguments = (*make_inputs(device, torch.float32).values(), 1e-5, 4, False, torch.float32, "torch")
    torch.library.opcheck(torch.ops.mamba2.gated_rmsnorm.default, arguments)


def test_group_size_must_divide(device: torch.device) -> None:
    inputs = make_inputs(device)
    with pytest.raises(ValueError, match="8 channels do not divide into groups of 3"):
        gated_rmsnorm(inputs["x"], inputs["weight"], group_size=3)
