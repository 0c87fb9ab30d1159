"""What no operator takes, and what all of them do: tensors elsewhere, of integers, and of nothing."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from model.ops.add_rmsnorm import add_rmsnorm
from model.ops.causal_conv1d import causal_conv1d, causal_conv1d_state, causal_conv1d_step
from model.ops.cross_entropy import linear_cross_entropy
from model.ops.gated_rmsnorm import gated_rmsnorm
from model.ops.rotary import rotary
from model.ops.ssd import ssd, ssd_step


def calls(batch: int, device: torch.device) -> dict[str, tuple[Callable[..., Any], dict[str, Tensor]]]:
    """Of every operator, the function and all its tensors, the one that chooses the path first."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device)

    def documents(*shape: int) -> Tensor:
        return torch.zeros(shape, device=device, dtype=torch.int32)

    per_head = {"A": normal(4), "D": normal(4), "dt_bias": normal(4)}
    return {
        "ssd": (ssd, {
            "x": normal(batch, 5, 4, 8), "dt": normal(batch, 5, 4), "B": normal(batch, 5, 2, 16),
            "C": normal(batch, 5, 2, 16), "initial_state": normal(batch, 4, 8, 16), "seq_idx": documents(batch, 5),
            **per_head,
        }),
        "ssd_step": (ssd_step, {
            "x": normal(batch, 4, 8), "dt": normal(batch, 4), "B": normal(batch, 2, 16), "C": normal(batch, 2, 16),
            "state": normal(batch, 4, 8, 16), **per_head,
        }),
        "causal_conv1d": (causal_conv1d, {
            "x": normal(batch, 5, 8), "weight": normal(8, 4), "bias": normal(8),
            "initial_state": normal(batch, 3, 8), "seq_idx": documents(batch, 5),
        }),
        "causal_conv1d_step": (causal_conv1d_step, {
            "x": normal(batch, 8), "state": normal(batch, 3, 8), "weight": normal(8, 4), "bias": normal(8),
        }),
        "gated_rmsnorm": (gated_rmsnorm, {"x": normal(batch, 8), "weight": normal(8), "gate": normal(batch, 8)}),
        "add_rmsnorm": (add_rmsnorm, {"residual": normal(batch, 8), "mixed": normal(batch, 8), "weight": normal(8)}),
        "linear_cross_entropy": (linear_cross_entropy, {
            "hidden": normal(batch, 8), "weight": normal(9, 8), "targets": documents(batch).long(),
        }),
        "rotary": (rotary, {"x": normal(batch, 2, 5, 8), "cos": normal(5, 4), "sin": normal(5, 4)}),
    }  # fmt: skip


OPERATORS = list(calls(0, torch.device("cpu")))


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_tensor_elsewhere_is_an_error(operator: str, device: torch.device) -> None:
    """Torch's dispatcher would return memory that nobody has written, C would read at the address of nothing."""
    function, tensors = calls(2, device)[operator]
    for name in list(tensors)[1:]:
        with pytest.raises(ValueError, match=f"{name} is on meta, {next(iter(tensors))} on {device.type}"):
            function(**{**tensors, name: tensors[name].to("meta")})


@pytest.mark.parametrize("operator", OPERATORS)
def test_integers_are_an_error(operator: str, device: torch.device) -> None:
    function, tensors = calls(2, device)[operator]
    first = next(iter(tensors))
    with pytest.raises(ValueError, match=f"{first} is torch.int64"):
        function(**{**tensors, first: torch.ones_like(tensors[first], dtype=torch.int64)})


@pytest.mark.parametrize("operator", ["ssd", "causal_conv1d"])
def test_documents_are_integers(operator: str, device: torch.device) -> None:
    function, tensors = calls(2, device)[operator]
    with pytest.raises(ValueError, match=r"seq_idx is torch\.float32"):
        function(**{**tensors, "seq_idx": tensors["seq_idx"].float() + 0.5})


@pytest.mark.parametrize(
    "documents", [[0, 0, 2**32, 2**32, 2**33], [7, 7, 2**53, 2**53 + 1, 2**53 + 1], [1, 0, 1, 1, 0]]
)
@pytest.mark.parametrize("backend", ["auto", "triton", "torch", "reference"])
@pytest.mark.parametrize("operator", ["ssd", "causal_conv1d"])
def test_documents_of_any_integers(operator: str, backend: str, documents: list[int], device: torch.device) -> None:
    """Kernels read 32 bits: indices that are equal in these are not taken for one document."""
    function, tensors = calls(2, device)[operator]
    given, starts = (torch.tensor(indices, device=device) for indices in (documents, numbered(documents)))
    found, expected = (
        function(**{**tensors, "seq_idx": indices.expand(2, 5)}, backend=backend)
        for indices in (given, starts.to(torch.int32))
    )
    assert torch.equal(found, expected)


def numbered(documents: list[int]) -> list[int]:
    """How many began before each position."""
    changes = (before != after for before, after in itertools.pairwise(documents))
    return list(itertools.accumulate(changes, initial=0))


@pytest.mark.parametrize("operator", OPERATORS)
def test_no_rows(operator: str, device: torch.device) -> None:
    """Outputs are empty, and gradients of what the rows share are zero."""
    function, tensors = calls(0, device)[operator]
    leaves = {
        name: tensor.clone().requires_grad_(tensor.is_floating_point() and name not in ("state", "cos", "sin"))
        for name, tensor in tensors.items()
    }
    outputs = function(**leaves)
    for output in outputs if isinstance(outputs, tuple) else (outputs,):
        assert output.numel() == 0 or output == 0
    first = outputs[-1] if operator == "add_rmsnorm" else outputs[0] if isinstance(outputs, tuple) else outputs
    first.sum().backward()
    gradients = (leaf.grad for leaf in leaves.values() if leaf.is_leaf)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("name", ["x", "B"])
def test_a_scan_of_nothing_is_an_error(name: str, device: torch.device) -> None:
    scan, tensors = calls(2, device)["ssd"]
    few = {"x": ("x", "initial_state"), "B": ("B", "C")}[name]
    with pytest.raises(ValueError, match="none may be 0"):
        scan(**{**tensors, **{one: tensors[one][:, :, :0] for one in few}})


@pytest.mark.parametrize("packed", [False, True])
def test_a_convolution_of_no_positions(packed: bool, device: torch.device) -> None:
    x, weight, state = (torch.randn(shape, device=device) for shape in ((2, 0, 8), (8, 4), (2, 3, 8)))
    seq_idx = torch.zeros(2, 0, device=device, dtype=torch.int32) if packed else None
    assert causal_conv1d(x, weight, initial_state=state, seq_idx=seq_idx).shape == (2, 0, 8)
    assert torch.equal(causal_conv1d_state(x, state), state)


def test_a_convolution_of_one_tap_has_no_state(device: torch.device) -> None:
    x, state = torch.randn(2, 5, 8, device=device), torch.randn(2, 0, 8, device=device)
    assert causal_conv1d_state(x, state).shape == (2, 0, 8)
    weight = torch.randn(8, 1, device=device)
    y = causal_conv1d(x, weight, initial_state=state, activation=None)
    torch.testing.assert_close(y, x * weight[:, 0])


def test_a_steps_activation_is_known(device: torch.device) -> None:
    step, tensors = calls(2, device)["causal_conv1d_step"]
    with pytest.raises(ValueError, match="activation is 'relu'"):
        step(**tensors, activation="relu")


def test_a_steps_state_need_not_be_contiguous(device: torch.device) -> None:
    """It is advanced where it lies, whole: never left in the middle by an error."""
    step, tensors = calls(2, device)["ssd_step"]
    turned = tensors["state"].transpose(2, 3).contiguous().transpose(2, 3)
    y, after = step(**{**tensors, "state": turned}, backend="torch")
    expected_y, expected = step(**tensors, backend="torch")
    assert after is turned
    torch.testing.assert_close((y, after), (expected_y, expected))
