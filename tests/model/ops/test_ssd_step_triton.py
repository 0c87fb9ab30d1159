"""One position of the SSD in Triton: interpreted where there is no GPU, against torch in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from model.ops.ssd import selfcheck, ssd_step
from tests.model.compare import error
from tests.model.cover import label, pairwise

AXES = {
    "dtype": [torch.float32, torch.bfloat16, torch.float16],
    "rows": [1, 3],
    "groups": [1, 2],
    "headdim": [5, 64],
    "dstate": [1, 24, 128],
    "options": ["none", "all", "limits"],
    "strided": [False, True],
}


def make(case: dict, device: torch.device) -> tuple[list[Tensor], dict]:
    """x, dt, A, B, C and a state, and options; strided rows lie apart in memory, as slices of a projection do."""
    rows, groups, heads = case["rows"], case["groups"], 2

    def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    def row(*shape: int) -> Tensor:
        size = math.prod(shape)
        whole = normal(rows, size + 7 * case["strided"], dtype=case["dtype"])
        return whole[:, :size].unflatten(1, shape)

    x, dt, B, C = row(heads, case["headdim"]), row(heads), *(row(groups, case["dstate"]) for _ in range(2))
    state = normal(rows, heads, case["headdim"], case["dstate"])
    options: dict = {"dt_softplus": case["options"] != "limits"}
    if case["options"] != "none":
        options |= {"D": normal(heads), "dt_bias": normal(heads)}
    if case["options"] == "limits":
        options["dt_limit"] = (0.1, 0.7)
    return [x, dt, -normal(heads).abs(), B, C, state], options


@pytest.mark.parametrize("case", pairwise(AXES), ids=label)
def test_outputs_and_states_are_those_of_torch(case: dict, device: torch.device) -> None:
    inputs, options = make(case, device)
    exact = [tensor.double() for tensor in inputs]
    doubles = {name: value.double() if isinstance(value, Tensor) else value for name, value in options.items()}
    expected = ssd_step(*exact, **doubles, backend="torch")
    y, state = ssd_step(*inputs, **options, backend="triton")
    assert y.dtype is case["dtype"]
    assert state is inputs[-1]
    rounding = {torch.float32: 5e-7, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[case["dtype"]]
    assert error(y, expected[0]) <= rounding * (1 if device.type == "cuda" else 2)  # which cuts bits off
    assert error(state, expected[1]) <= 5e-7


def test_a_nan_is_not_hidden_by_the_limits(device: torch.device) -> None:
    case = {"dtype": torch.float32, "rows": 2, "groups": 1, "headdim": 4, "dstate": 8, "options": "limits"}
    inputs, options = make(case | {"strided": False}, device)
    inputs[1][0, 1] = math.nan
    y, state = ssd_step(*inputs, **options, backend="triton")
    for found in (y, state):
        assert found[0, 1].isnan().all()
        assert found[0, 0].isfinite().all()
        assert found[1].isfinite().all()


def test_what_the_kernel_does_not_take(device: torch.device) -> None:
    case = {"dtype": torch.float32, "rows": 1, "groups": 1, "headdim": 4, "dstate": 8, "options": "none"}
    inputs, options = make(case | {"strided": False}, device)
    learnt = [inputs[0].clone().requires_grad_(), *inputs[1:]]
    strided = [*inputs[:-1], inputs[-1].mT.contiguous().mT]
    for other in ([tensor.double() for tensor in inputs], learnt, strided):
        with pytest.raises(ValueError, match="backend is 'triton': this operator has no such kernel"):
            ssd_step(*other, **options, backend="triton")
    assert ssd_step(*learnt, **options)[0].requires_grad


def test_the_self_check(device: torch.device) -> None:
    assert selfcheck._step_passes.__wrapped__(str(device), torch.bfloat16, 8, 16)
