"""The gated RMSNorm in C against its definition in fp64."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from model.ops._native import Works
from model.ops.gated_rmsnorm import gated_rmsnorm, native
from tests.model.compare import error, outputs_and_gradients

pytestmark = pytest.mark.skipif(not native.works(), reason="no C compiler here")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_outputs_and_gradients_are_those_of_the_definition(dtype: torch.dtype) -> None:
    """At most twice the error of torch in that precision, and a few roundings more."""
    draw = random.Random(0)
    rounding = {torch.float32: 2e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype]
    for _ in range(30):
        group = draw.choice([1, 3, 8, 40, 256])
        rows, d = draw.choice([1, 2, native.ROWS, native.ROWS + 1, 3 * native.ROWS - 5]), group * draw.choice([1, 2, 3])
        inputs = {"x": torch.randn(rows, d).to(dtype), "weight": torch.randn(d), "gate": torch.randn(rows, d).to(dtype)}
        if draw.random() < 0.3:
            del inputs["gate"]
        inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
        exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
        options = {"group_size": group, "norm_before_gate": draw.random() < 0.5, "eps": 10.0 ** draw.randint(-6, -1)}
        truths, ours, others = (
            outputs_and_gradients(
                lambda tensors=tensors, backend=backend, options=options: gated_rmsnorm(
                    **tensors, **options, backend=backend
                ),
                list(tensors.values()),
            )
            for tensors, backend in ((exact, "reference"), (inputs, "native"), (inputs, "torch"))
        )
        for name, truth, mine, other in zip(["y", *inputs], truths, ours, others, strict=True):
            alone = 2e-4 if group == 1 else 0.0  # the norm of one channel is its sign: gradients cancel but for eps
            assert error(mine, truth) <= 2 * error(other, truth) + rounding + alone, f"{name}: {error(mine, truth):.1e}"


@pytest.mark.parametrize("norm_before_gate", [False, True])
def test_each_tensor_in_its_own_dtype(norm_before_gate: bool) -> None:
    """bf16 is read as it is and written rounded once: what fp32 makes of the same numbers, rounded."""
    dtypes = (torch.float32, torch.bfloat16)
    for of_x, of_gate, of_y in itertools.product(dtypes, repeat=3):
        numbers = [torch.randn(shape).bfloat16() for shape in ((70, 48), (70, 48), (48,), (70, 48))]
        found = []
        for x_dtype, gate_dtype, y_dtype in ((of_x, of_gate, of_y), (torch.float32,) * 3):
            x, gate = numbers[0].to(x_dtype).requires_grad_(), numbers[1].to(gate_dtype).requires_grad_()
            weight = numbers[2].float().requires_grad_()
            options = {
                "group_size": 24,
                "norm_before_gate": norm_before_gate,
                "out_dtype": y_dtype,
                "backend": "native",
            }
            y = gated_rmsnorm(x, weight, gate=gate, **options)  # type: ignore[arg-type]
            found.append([y, *torch.autograd.grad(y, [x, gate, weight], numbers[3].to(y_dtype))])
        for ours, other, dtype in zip(*found, (of_y, of_x, of_gate, torch.float32), strict=True):
            assert ours.dtype == dtype
            assert torch.equal(ours, other.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_the_number_of_threads(dtype: torch.dtype) -> None:
    x, gate, weight = (torch.randn(shape).to(dtype).requires_grad_() for shape in ((100, 24), (100, 24), (24,)))
    found: list[list[Tensor]] = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(outputs_and_gradients(lambda: gated_rmsnorm(x, weight, gate=gate), [x, weight, gate]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_strided_inputs_and_the_dtype_of_the_result() -> None:
    x, gate, weight = (torch.randn(6, 40)[:, ::2] for _ in range(2)), torch.randn(6, 20), torch.randn(20)
    x, strided_gate = x
    y = gated_rmsnorm(x, weight, gate=strided_gate, out_dtype=torch.bfloat16, backend="native")
    same = gated_rmsnorm(x.contiguous(), weight, gate=strided_gate.contiguous(), backend="native").to(torch.bfloat16)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, same)
    assert not torch.equal(y, gated_rmsnorm(x, weight, gate=gate, backend="native").to(torch.bfloat16))


def test_the_operator_keeps_its_promises() -> None:
    x, gate, weight = (torch.randn(shape, requires_grad=True) for shape in ((5, 24), (5, 24), (24,)))
    arguments = (x, weight, gate, 1e-5, 8, False, torch.float32, "native")
    torch.library.opcheck(torch.ops.mamba2.gated_rmsnorm.default, arguments)


def test_code_that_computes_something_else_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    right = native.forward
    monkeypatch.setattr(native, "forward", lambda *arguments: right(*arguments) * 1.01)
    with pytest.warns(UserWarning, match="the slower torch path is used"):
        assert not native.works.ask()


def test_c_gets_nothing_but_real_tensors() -> None:
    x, weight = torch.randn(4, 8), torch.randn(8)
    with torch.no_grad():
        expected = gated_rmsnorm(x, weight, backend="torch")
        with FakeTensorMode():
            assert gated_rmsnorm(torch.randn(4, 8), torch.randn(8)).shape == (4, 8)
        with torch.device("meta"):
            assert error(gated_rmsnorm(x, weight), expected) <= 1e-6
        assert error(gated_rmsnorm(torch._neg_view(x), weight), -expected) <= 1e-6


def test_it_is_asked_outside_of_the_callers_modes() -> None:
    with FakeTensorMode():
        assert Works(native.works.ask)()
