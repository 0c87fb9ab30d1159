"""What every operator has from its registration; the operators' own tests check each by torch.library.opcheck."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from model.ops._operator import LIBRARY, operator
from model.ops.gated_rmsnorm import gated_rmsnorm


def test_gradients_have_no_gradients(device: torch.device) -> None:
    """An error, not a wrong result: the backwards are written by hand, once."""
    x, weight = torch.randn(4, 8, device=device, requires_grad=True), torch.ones(8, device=device)
    (gradient,) = torch.autograd.grad(gated_rmsnorm(x, weight, backend="torch").sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="gated_rmsnorm_backward has no gradients"):
        gradient.sum().backward()


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Nothing."""


DOUBLED = operator(_doubled, torch.empty_like, _save, lambda ctx, grad: 2 * grad)
NAME = "mamba2::doubled"


def test_a_function_is_an_operator_under_its_name() -> None:
    assert LIBRARY.ns == "mamba2"
    torch.library.opcheck(torch.ops.mamba2.doubled.default, (torch.ones(3, requires_grad=True),))


@pytest.mark.parametrize("call", [DOUBLED, torch.ops.mamba2.doubled.default], ids=["called", "as an operator"])
def test_results_and_gradients_are_the_same_either_way(call: Callable[..., torch.Tensor]) -> None:
    x = torch.ones(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(call(x).sum(), x)
    assert torch.equal(gradient, torch.full((3,), 2.0))
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert torch.equal(call(x), torch.full((3,), 2.0))
            assert not call(x).requires_grad
    assert not call(x.detach()).requires_grad


class Seen(TorchDispatchMode):
    """Names of the operators that a mode sees."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))


def test_modes_see_the_operator() -> None:
    x = torch.ones(3, requires_grad=True)
    with Seen() as seen:
        DOUBLED(x)
    assert seen.names == [NAME]


def test_subclasses_see_the_operator() -> None:
    """Here a fake one, which has no memory that the function itself could read; without its mode."""
    with FakeTensorMode():
        fake = torch.ones(3)
    assert isinstance(DOUBLED(fake), FakeTensor)


def test_profilers_see_the_operator() -> None:
    with torch.profiler.profile() as profile:
        DOUBLED(torch.ones(3))
    assert NAME in {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("grad", [False, True])
def test_compilers_see_the_operator(grad: bool) -> None:
    graphs = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
        return graph

    with torch.set_grad_enabled(grad):
        torch.compile(DOUBLED, backend=keep, fullgraph=True)(torch.ones(3, requires_grad=True))
    assert graphs == [[torch.ops.mamba2.doubled.default]]
    traced = make_fx(DOUBLED)(torch.ones(3))
    assert torch.ops.mamba2.doubled.default in {node.target for node in traced.graph.nodes}
