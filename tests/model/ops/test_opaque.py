"""What torch does with the operators without looking into them: compile, export, checkpoint selectively, autocast."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from model.ops.add_rmsnorm import add_rmsnorm
from model.ops.causal_conv1d import causal_conv1d
from model.ops.cross_entropy import linear_cross_entropy
from model.ops.gated_rmsnorm import gated_rmsnorm
from model.ops.rotary import rotary
from model.ops.ssd import ssd
from tests.model.compare import assert_agree, outputs_and_gradients

Operator = Callable[..., Tensor | tuple[Tensor, ...]]


def run_ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, ...]:
    return ssd(x, dt, A, B, C, dt_softplus=True, return_final_state=True)  # type: ignore[return-value]


def run_gated_rmsnorm(x: Tensor, weight: Tensor, gate: Tensor) -> Tensor:
    return gated_rmsnorm(x, weight, gate=gate, group_size=4)


def run_cross_entropy(hidden: Tensor, weight: Tensor) -> Tensor:
    return linear_cross_entropy(hidden, weight, torch.arange(7, device=hidden.device))


def run_rotary(x: Tensor) -> Tensor:
    angles = torch.linspace(0, 1, 20, device=x.device).view(5, 4)
    return rotary(x, angles.cos(), angles.sin())


CASES: dict[str, tuple[Operator, list[tuple[int, ...]]]] = {
    "ssd": (run_ssd, [(2, 70, 4, 8), (2, 70, 4), (4,), (2, 70, 2, 16), (2, 70, 2, 16)]),
    "causal_conv1d": (causal_conv1d, [(2, 9, 8), (8, 4), (8,)]),
    "gated_rmsnorm": (run_gated_rmsnorm, [(2, 5, 8), (8,), (2, 5, 8)]),
    "add_rmsnorm": (add_rmsnorm, [(2, 5, 8), (2, 5, 8), (8,)]),
    "linear_cross_entropy": (run_cross_entropy, [(7, 8), (9, 8)]),
    "rotary": (run_rotary, [(2, 3, 5, 8)]),
}


def inputs_of(name: str, device: torch.device) -> list[Tensor]:
    make = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=make).to(device) for shape in CASES[name][1]]
    if name == "ssd":
        tensors[2] = -tensors[2].abs()
    return [tensor.requires_grad_() for tensor in tensors]


@pytest.fixture(autouse=True)
def asked(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast paths are known: a call before has compared them. On a GPU kernels are meant, in fp32, too."""
    if device.type == "cuda":
        monkeypatch.setenv("MAMBA2_BACKEND", "triton")
    for name, (operator, _) in CASES.items():
        operator(*inputs_of(name, device))


class Alone(torch.nn.Module):
    """As a module, which torch.export wants."""

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, *inputs: Tensor) -> Any:
        return self.operator(*inputs)


@pytest.mark.parametrize("name", CASES)
def test_compiled_and_exported_it_is_the_same(name: str, device: torch.device) -> None:
    operator, inputs = CASES[name][0], inputs_of(name, device)
    expected = outputs_and_gradients(lambda: operator(*inputs), inputs)
    torch.compiler.reset()
    compiled = torch.compile(operator, fullgraph=True, dynamic=True, backend="aot_eager")
    assert_agree(outputs_and_gradients(lambda: compiled(*inputs), inputs), expected, 1e-6)
    program = torch.export.export(Alone(operator), tuple(inputs))
    assert any(f"mamba2.{name}" in str(node.target) for node in program.graph.nodes)
    outputs = program.module()(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert_agree(outputs, expected[: len(outputs)], 1e-6)


class Recorder(TorchDispatchMode):
    """Keeps the calls of our operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if "mamba2::" in str(function.name()):
            self.calls.append((function, args))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("policy", "times"), [(CheckpointPolicy.MUST_SAVE, 1), (CheckpointPolicy.PREFER_RECOMPUTE, 2)])
@pytest.mark.parametrize("name", CASES)
def test_checkpoints_save_or_recompute_it_as_one(
    name: str, policy: CheckpointPolicy, times: int, device: torch.device
) -> None:
    operator, inputs = CASES[name][0], inputs_of(name, device)
    expected = outputs_and_gradients(lambda: operator(*inputs), inputs)

    def choose(context: Any, function: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
        return policy if str(function) == f"mamba2.{name}.default" else CheckpointPolicy.PREFER_RECOMPUTE

    def run() -> Any:
        contexts = partial(create_selective_checkpoint_contexts, choose)
        return checkpoint(operator, *inputs, use_reentrant=False, context_fn=contexts)

    with Recorder() as recorder:
        assert_agree(outputs_and_gradients(run, inputs), expected, 0.0)
    backwards = name == "rotary"  # whose backward is itself
    assert sum(str(function) == f"mamba2.{name}.default" for function, _ in recorder.calls) == times + backwards


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_autocast_changes_nothing_in_it(name: str, dtype: torch.dtype, device: torch.device) -> None:
    """An operator chooses its own precision by its inputs, which autocast has made before."""
    operator, inputs = CASES[name][0], inputs_of(name, device)
    expected = outputs_and_gradients(lambda: operator(*inputs), inputs)
    with torch.autocast(device.type, dtype):
        results = outputs_and_gradients(lambda: operator(*inputs), inputs)
    assert [tensor.dtype for tensor in results] == [tensor.dtype for tensor in expected]
    assert_agree(results, expected, 0.0)


@pytest.mark.parametrize("name", CASES)
def test_any_order_in_memory_keeps_its_promises(
    name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The torch path, too, whose operators keep the order of their inputs."""
    turned = [tensor.detach().mT.contiguous().mT if tensor.dim() > 1 else tensor for tensor in inputs_of(name, device)]
    swapped = [tensor.detach().transpose(0, -1).contiguous().transpose(0, -1) for tensor in turned]
    monkeypatch.setenv("MAMBA2_BACKEND", "torch")
    for tensors in (turned, swapped):
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        with Recorder() as recorder:
            outputs_and_gradients(partial(CASES[name][0], *leaves), leaves)
        assert recorder.calls
        for function, arguments in recorder.calls:
            torch.library.opcheck(function, arguments, test_utils=("test_schema", "test_faketensor"))
