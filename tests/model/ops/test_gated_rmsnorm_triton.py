"""The gated RMSNorm's Triton kernels: interpreted where there is no GPU, against the definition in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.ops.gated_rmsnorm import gated_rmsnorm, selfcheck
from tests.model.compare import as_good, outputs_and_gradients
from tests.model.cover import label, pairwise

AXES = {
    "dtype": [torch.float32, torch.bfloat16, torch.float16],
    "out_dtype": [None, torch.float32, torch.bfloat16],
    "weight_dtype": [None, torch.float32],
    "rows": ["one", "odd", "programs"],
    "groups": [1, 3],
    "group_size": [1, 7, 64, 100, 1500],
    "gate": ["none", "first", "last"],
    "layout": ["plain", "view", "transposed"],
}
COVERING = pairwise(AXES)
USUAL = {"dtype": torch.bfloat16, "out_dtype": None, "weight_dtype": None, "rows": "odd", "groups": 1} | {
    "group_size": 100,
    "gate": "first",
    "layout": "plain",
}


def make(case: dict, device: torch.device) -> tuple[dict[str, Tensor], dict]:
    d = case["groups"] * case["group_size"]
    shape = {"one": (1,), "odd": (3, 5), "programs": (2, 19)}[case["rows"]]

    def normal(*shape: int) -> Tensor:
        if case["layout"] == "view":  # some channels of a wider tensor
            return torch.randn(*shape[:-1], 2 * shape[-1] + 3, device=device).to(case["dtype"])[..., 3 : 3 + shape[-1]]
        if case["layout"] == "transposed":
            return torch.randn(*shape, device=device).to(case["dtype"]).movedim(-1, 0).contiguous().movedim(0, -1)
        return torch.randn(*shape, device=device).to(case["dtype"])

    inputs = {"x": normal(*shape, d), "weight": torch.randn(d, device=device).to(case["weight_dtype"] or case["dtype"])}
    if case["gate"] != "none":
        inputs["gate"] = normal(*shape, d)
    options = {"group_size": case["group_size"], "norm_before_gate": case["gate"] == "last"}
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}, options | {
        "out_dtype": case["out_dtype"]
    }


@pytest.fixture
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles a program and several programs, on inputs that take an interpreter no time."""
    from model.ops.gated_rmsnorm import triton

    monkeypatch.setattr(triton, "TILE", 256)
    monkeypatch.setattr(triton, "TILE_BACKWARD", 256)
    monkeypatch.setattr(triton, "PROGRAMS", 9)
    plan = triton.Plan(38, 100, 100)
    assert min(plan.parts, plan.tiles_of_program, plan.options["R"]) > 1


def check(case: dict, device: torch.device) -> None:
    inputs, options = make(case, device)

    def run(tensors: dict[str, Tensor], backend: str) -> list[Tensor]:
        call = {**tensors, **options, "backend": backend}
        return outputs_and_gradients(lambda: gated_rmsnorm(**call), list(tensors.values()))

    ours, torchs = run(inputs, "triton"), run(inputs, "torch")
    options["out_dtype"] = torch.float64
    exact = run({name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}, "reference")
    assert ours[0].dtype == (case["out_dtype"] or case["dtype"])
    for name, *tensors in zip(["y", *inputs], ours, torchs, exact, strict=True):
        as_good(name, *tensors)


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("case", COVERING, ids=label)
def test_outputs_and_gradients_are_those_of_the_definition(case: dict, device: torch.device) -> None:
    check(case, device)


@pytest.mark.parametrize("group_size", [4096, 16384])
@pytest.mark.parametrize("gate", ["first", "last"])
def test_large_groups(group_size: int, gate: str, device: torch.device) -> None:
    check(USUAL | {"group_size": group_size, "gate": gate}, device)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # of the interpreter: sigmoid(-1e4) is 0
@pytest.mark.parametrize("gate", ["none", "first", "last"])
def test_extreme_values(gate: str, device: torch.device) -> None:
    inputs, options = make(USUAL | {"dtype": torch.float32, "gate": gate}, device)
    with torch.no_grad():
        for tensor in inputs.values():
            tensor.mul_(1e4)
        inputs["x"][0, 0] = 0
    results = (
        outputs_and_gradients(lambda path=path: gated_rmsnorm(**inputs, **options, backend=path), [*inputs.values()])
        for path in ("triton", "torch", "reference")
    )
    for name, *tensors in zip(["y", *inputs], *results, strict=True):
        as_good(name, *tensors)


@pytest.mark.filterwarnings("ignore:.*encountered in")  # of the interpreter: rows that are not there
@pytest.mark.parametrize("gate", ["none", "first", "last"])
def test_an_eps_of_zero_says_nothing_of_rows_that_are_not_there(gate: str, device: torch.device) -> None:
    """A program's last tile may lie beyond the rows: of zeros, whose norm would be none."""
    inputs, options = make(USUAL | {"dtype": torch.float32, "gate": gate}, device)
    results = (
        outputs_and_gradients(
            lambda path=path: gated_rmsnorm(**inputs, **options, eps=0.0, backend=path), list(inputs.values())
        )
        for path in ("triton", "torch", "reference")
    )
    for name, *tensors in zip(["y", *inputs], *results, strict=True):
        as_good(name, *tensors)


@pytest.mark.usefixtures("few_programs")
def test_runs_are_bitwise_the_same(device: torch.device) -> None:
    inputs, options = make(USUAL | {"rows": "programs", "groups": 3}, device)
    first, second = (
        outputs_and_gradients(lambda: gated_rmsnorm(**inputs, **options, backend="triton"), list(inputs.values()))
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("gate", ["none", "first"])
def test_the_operator_keeps_its_promises(gate: str, device: torch.device) -> None:
    inputs, _ = make(USUAL | {"gate": gate}, device)
    torch.library.opcheck(
        torch.ops.mamba2.gated_rmsnorm.default,
        (inputs["x"], inputs["weight"], inputs.get("gate"), 1e-5, 100, False, torch.float32, "triton"),
    )


def test_without_gradients_it_is_the_same(device: torch.device) -> None:
    inputs, options = make(USUAL, device)
    with torch.no_grad():
        alone = gated_rmsnorm(**inputs, **options, backend="triton")
    assert torch.equal(alone, gated_rmsnorm(**inputs, **options, backend="triton"))


def test_inputs_that_kernels_do_not_take_are_told(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = [
        (torch.randn(3, 8, device=device, dtype=torch.float64), {}),
        (torch.randn(1, 16385, device=device), {}),
        (torch.randn(0, 8, device=device), {}),
        (torch.randn(3, 8, device=device), {"out_dtype": torch.float64}),
    ]
    for x, options in refused:
        weight = torch.ones(x.shape[-1], device=device, dtype=x.dtype)
        with pytest.raises(ValueError, match="backend is 'triton': this operator has no such kernel"):
            gated_rmsnorm(x, weight, **options, backend="triton")
        monkeypatch.setenv("MAMBA2_BACKEND", "triton")  # it only asks: torch takes what Triton does not
        assert torch.equal(gated_rmsnorm(x, weight, **options), gated_rmsnorm(x, weight, **options, backend="torch"))
        monkeypatch.delenv("MAMBA2_BACKEND")


def test_the_interpreter_runs_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from model.ops.gated_rmsnorm import triton

    def forward(*inputs: object) -> Tensor:
        raise AssertionError("a kernel ran")

    monkeypatch.setattr(triton, "forward", forward)
    gated_rmsnorm(torch.randn(3, 8), torch.ones(8))
    monkeypatch.setenv("MAMBA2_BACKEND", "triton")
    gated_rmsnorm(torch.randn(3, 8), torch.ones(8))


@pytest.mark.parametrize("fault", ["wrong", "fails"])
def test_kernels_that_are_wrong_or_fail_are_left(
    device: torch.device, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model.ops.gated_rmsnorm import triton

    right = triton.backward
    arguments = (str(device), (torch.bfloat16, torch.bfloat16, torch.bfloat16, torch.bfloat16), 64, True)
    assert selfcheck._passes.__wrapped__(*arguments)

    def backward(*inputs: object) -> tuple[Tensor, ...]:
        if fault == "fails":
            raise RuntimeError("out of resources")
        dx, d_weight, d_gate = right(*inputs)
        return dx, d_weight * 1.05, d_gate

    monkeypatch.setattr(triton, "backward", backward)
    with pytest.warns(UserWarning, match="the slower torch path is used"):
        assert not selfcheck._passes.__wrapped__(*arguments)
