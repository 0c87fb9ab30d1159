"""Backward operators, too, make new tensors of the shapes that they promise: opcheck of calls that training makes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from model.ops.add_rmsnorm import add_rmsnorm
from model.ops.causal_conv1d import causal_conv1d
from model.ops.cross_entropy import linear_cross_entropy
from model.ops.gated_rmsnorm import gated_rmsnorm
from model.ops.ssd import ssd

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [
    (name, path)
    for name, paths in {
        "ssd": ("triton", "native", "torch"),
        "conv": ("triton", "native", "torch"),
        "gated norm": ("triton", "native", "torch"),
        "norm": ("triton", "native", "torch"),
        "cross entropy": ("triton", "native", "torch"),
    }.items()
    for path in paths
    if path != "native" or DEVICE == "cpu"
]


class Recorder(TorchDispatchMode):
    """Keeps the calls of our backward operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if "mamba2::" in str(function.name()) and "backward" in str(function.name()):
            self.calls.append((function, args))
        return function(*args, **(kwargs or {}))


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, requires_grad=True)


def run_ssd(path: str) -> Tensor:
    x, maps = normal(1, 70, 4, 16), [normal(1, 70, 2, 16) for _ in range(2)]
    options = {"D": normal(4), "dt_bias": normal(4), "dt_softplus": True, "backend": path}
    return ssd(x, normal(1, 70, 4), -normal(4).abs(), *maps, **options)  # type: ignore[arg-type,return-value]


def run_conv(path: str) -> Tensor:
    return causal_conv1d(normal(1, 9, 1), normal(1, 4), normal(1), activation="silu", backend=path)  # type: ignore[arg-type,return-value]


def run_gated_norm(path: str) -> Tensor:
    return gated_rmsnorm(normal(3, 8), normal(8), gate=normal(3, 8), group_size=4, backend=path)  # type: ignore[arg-type]


def run_norm(path: str) -> Tensor:
    total, y = add_rmsnorm(normal(3, 8), normal(3, 8), normal(8), backend=path)  # type: ignore[arg-type]
    return total + y


def run_cross_entropy(path: str) -> Tensor:
    targets = torch.arange(3, device=DEVICE)
    return linear_cross_entropy(normal(3, 8), normal(9, 8), targets, backend=path)  # type: ignore[arg-type]


OPERATORS: dict[str, Callable[[str], Tensor]] = {
    "ssd": run_ssd,
    "conv": run_conv,
    "gated norm": run_gated_norm,
    "norm": run_norm,
    "cross entropy": run_cross_entropy,
}


@pytest.mark.parametrize(("name", "path"), CASES)
def test_schema_and_shapes(name: str, path: str) -> None:
    recorder = Recorder()
    with recorder:
        OPERATORS[name](path).sum().backward()
    assert recorder.calls
    for function, arguments in recorder.calls:
        torch.library.opcheck(function, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(("name", "path"), CASES)
def test_activation_checkpointing(name: str, path: str) -> None:
    """Which makes what was saved anew when it is first asked for, and refuses to do so twice."""
    checkpoint(lambda: OPERATORS[name](path).sum(), use_reentrant=False).backward()
