"""The sum and its RMSNorm against the definition in fp64: torch's operators, and Triton's kernels, interpreted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.ops.add_rmsnorm import add_rmsnorm, selfcheck
from model.ops.gated_rmsnorm import native
from tests.model.compare import as_good, assert_agree, outputs_and_gradients
from tests.model.cover import label, pairwise

AXES = {
    "dtype": [torch.float32, torch.bfloat16, torch.float16],
    "mixed_dtype": [None, torch.float32, torch.bfloat16],
    "out_dtype": [None, torch.float32, torch.bfloat16],
    "weight_dtype": [None, torch.float32],
    "rows": ["one", "odd", "programs"],
    "d": [1, 7, 64, 300, 1500],
    "multiplier": [1.0, 0.22],
    "used": ["both", "sum", "norm"],
    "layout": ["plain", "view"],
}
USUAL = {"dtype": torch.float32, "mixed_dtype": torch.bfloat16, "out_dtype": torch.bfloat16, "weight_dtype": None} | {
    "rows": "odd",
    "d": 100,
    "multiplier": 1.0,
    "used": "both",
    "layout": "plain",
}


def make(case: dict, device: torch.device) -> tuple[dict[str, Tensor], dict]:
    shape = {"one": (1,), "odd": (3, 5), "programs": (2, 19)}[case["rows"]]
    dtype, d = case["dtype"], case["d"]

    def normal(dtype: torch.dtype) -> Tensor:
        if case["layout"] == "view":  # some channels of a wider tensor
            return torch.randn(*shape, 2 * d + 3, device=device).to(dtype)[..., 3 : 3 + d]
        return torch.randn(*shape, d, device=device).to(dtype)

    inputs = {
        "residual": normal(dtype),
        "mixed": normal(case["mixed_dtype"] or dtype),
        "weight": torch.randn(d, device=device).to(case["weight_dtype"] or dtype),
    }
    options = {"multiplier": case["multiplier"], "out_dtype": case["out_dtype"]}
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}, options


def run(inputs: dict[str, Tensor], options: dict, backend: str, used: str = "both") -> list[Tensor]:
    """Outputs, and the gradients of what is used of them."""
    part = {"both": slice(None), "sum": slice(0, 1), "norm": slice(1, 2)}[used]
    return outputs_and_gradients(
        lambda: add_rmsnorm(**inputs, **options, backend=backend)[part],  # type: ignore[arg-type]
        list(inputs.values()),
    )


def check(case: dict, device: torch.device, kernels: str = "triton") -> None:
    inputs, options = make(case, device)
    ours, torchs = (run(inputs, options, backend, case["used"]) for backend in (kernels, "torch"))
    exact_inputs = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    exact = run(exact_inputs, options | {"out_dtype": torch.float64}, "reference", case["used"])
    names = {"both": ["total", "y"], "sum": ["total"], "norm": ["y"]}[case["used"]]
    for name, *tensors in zip([*names, *inputs], ours, torchs, exact, strict=True):
        as_good(name, *tensors)


@pytest.fixture
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles a program and several programs, on inputs that take an interpreter no time."""
    from model.ops.gated_rmsnorm import triton

    monkeypatch.setattr(triton, "TILE", 256)
    monkeypatch.setattr(triton, "TILE_BACKWARD", 256)
    monkeypatch.setattr(triton, "PROGRAMS", 3)


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("case", pairwise(AXES), ids=label)
def test_kernels_compute_the_definition(case: dict, device: torch.device) -> None:
    check(case, device)


@pytest.mark.skipif(not native.works(), reason="no C compiler here")
@pytest.mark.parametrize("case", pairwise(AXES), ids=label)
def test_c_computes_the_definition(case: dict) -> None:
    check(case, torch.device("cpu"), "native")


@pytest.mark.skipif(not native.works(), reason="no C compiler here")
def test_c_is_what_a_cpu_takes() -> None:
    inputs, options = make(USUAL, torch.device("cpu"))
    ours = run(inputs, options, "native")
    assert all(map(torch.equal, run(inputs, options, "auto"), ours))
    assert not all(map(torch.equal, run(inputs, options, "torch"), ours))
    with torch.no_grad():
        assert all(map(torch.equal, add_rmsnorm(**inputs, **options), ours[:2]))  # type: ignore[arg-type]
    arguments = (*inputs.values(), 1e-5, 1.0, torch.bfloat16, "native")
    torch.library.opcheck(torch.ops.mamba2.add_rmsnorm.default, arguments)


@pytest.mark.parametrize("d", [4096, 16384])
def test_wide_rows(d: int, device: torch.device) -> None:
    check(USUAL | {"d": d}, device)


@pytest.mark.filterwarnings("ignore:.*encountered in")  # of the interpreter: rows that are not there
def test_an_eps_of_zero_says_nothing_of_rows_that_are_not_there(device: torch.device) -> None:
    inputs, options = make(USUAL | {"dtype": torch.float32, "mixed_dtype": None}, device)
    results = (run(inputs, options | {"eps": 0.0}, path) for path in ("triton", "torch", "reference"))
    for name, *tensors in zip(["total", "y", *inputs], *results, strict=True):
        as_good(name, *tensors)


@pytest.mark.parametrize("multiplier", [1.0, 0.3])
@pytest.mark.parametrize("used", ["both", "sum", "norm"])
def test_torch_computes_the_definition(multiplier: float, used: str, device: torch.device) -> None:
    case = USUAL | {"dtype": torch.float64, "mixed_dtype": None, "out_dtype": None}
    inputs, options = make(case | {"multiplier": multiplier}, device)
    assert_agree(run(inputs, options, "torch", used), run(inputs, options, "reference", used), 1e-12)


def test_gradcheck(device: torch.device) -> None:
    inputs, _ = make(USUAL | {"dtype": torch.float64, "mixed_dtype": None, "d": 5}, device)
    assert torch.autograd.gradcheck(lambda *tensors: add_rmsnorm(*tensors, multiplier=0.7), tuple(inputs.values()))


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_the_norm_is_of_the_sum_as_it_is_stored(backend: str, device: torch.device) -> None:
    inputs, options = make(USUAL | {"dtype": torch.bfloat16, "out_dtype": torch.float32}, device)
    total, y = add_rmsnorm(**inputs, **options, backend=backend)  # type: ignore[arg-type]
    assert total.dtype == torch.bfloat16
    expected = torch.nn.functional.rms_norm(total.float(), total.shape[-1:], inputs["weight"].float(), 1e-5)
    assert_agree([y], [expected], 1e-6)


@pytest.mark.usefixtures("few_programs")
def test_runs_are_bitwise_the_same(device: torch.device) -> None:
    inputs, options = make(USUAL | {"rows": "programs"}, device)
    first, second = (run(inputs, options, "triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("mixed", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("path", ["torch", "triton"])
def test_the_operator_keeps_its_promises(mixed: torch.dtype, path: str, device: torch.device) -> None:
    inputs, _ = make(USUAL | {"mixed_dtype": mixed, "weight_dtype": torch.float32}, device)
    torch.library.opcheck(torch.ops.mamba2.add_rmsnorm.default, (*inputs.values(), 1e-5, 1.0, torch.bfloat16, path))


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_without_gradients_it_is_the_same(backend: str, device: torch.device) -> None:
    inputs, options = make(USUAL, device)
    with torch.no_grad():
        alone = add_rmsnorm(**inputs, **options, backend=backend)  # type: ignore[arg-type]
    assert all(map(torch.equal, alone, add_rmsnorm(**inputs, **options, backend=backend)))  # type: ignore[arg-type]


def test_inputs_that_do_not_fit_are_told(device: torch.device) -> None:
    x, weight = torch.randn(3, 8, device=device), torch.ones(8, device=device)
    with pytest.raises(ValueError, match="mixed has shape"):
        add_rmsnorm(x, x[:2], weight)
    with pytest.raises(ValueError, match="weight has shape"):
        add_rmsnorm(x, x, weight[:7])
    with pytest.raises(ValueError, match="backend is 'triton': this operator has no such kernel"):
        add_rmsnorm(x.double(), x, weight, backend="triton")


@pytest.mark.parametrize("fault", ["wrong", "fails"])
@pytest.mark.parametrize("multiplier", [1.0, 0.5])
def test_kernels_that_are_wrong_or_fail_are_left(
    device: torch.device, fault: str, multiplier: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model.ops.add_rmsnorm import triton

    right = triton.backward
    arguments = (str(device), (torch.bfloat16,) * 4, 64, multiplier)
    assert selfcheck._passes.__wrapped__(*arguments)

    def backward(*inputs: object) -> tuple[Tensor, ...]:
        if fault == "fails":
            raise RuntimeError("out of resources")
        d_residual, *others = right(*inputs)
        return d_residual * 1.05, *others

    monkeypatch.setattr(triton, "backward", backward)
    with pytest.warns(UserWarning, match="the slower torch path is used"):
        assert not selfcheck._passes.__wrapped__(*arguments)
