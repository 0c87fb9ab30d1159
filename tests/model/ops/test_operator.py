"""What every operator has from its registration; the operators' own tests check each by torch.library.opcheck."""

import pytest
import torch

from model.ops._operator import LIBRARY, operator
from model.ops.cross_entropy import linear_cross_entropy
from model.ops.gated_rmsnorm import gated_rmsnorm


def test_gradients_have_no_gradients(device: torch.device) -> None:
    """An error, not a wrong result: the backwards are written by hand, once."""
    x, weight = torch.randn(4, 8, device=device, requires_grad=True), torch.ones(8, device=device)
    (gradient,) = torch.autograd.grad(gated_rmsnorm(x, weight, backend="torch").sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="gated_rmsnorm_backward has no gradients"):
        gradient.sum().backward()


def test_gradients_of_the_cross_entropy_have_none_either(device: torch.device) -> None:
    """They are made with the loss: a penalty on their norm would have no gradient, and nobody would see."""
    hidden, weight = (torch.randn(rows, 8, device=device, requires_grad=True) for rows in (4, 9))
    loss = linear_cross_entropy(hidden, weight, torch.arange(4, device=device))
    (gradient,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(NotImplementedError, match="linear_cross_entropy_backward has no gradients"):
        (loss + gradient.square().sum()).backward()


def test_a_function_is_an_operator_under_its_name() -> None:
    def _doubled(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    doubled = operator(_doubled, torch.empty_like)
    assert doubled is torch.ops.mamba2.doubled.default
    assert LIBRARY.ns == "mamba2"
    assert torch.equal(doubled(torch.ones(3)), torch.full((3,), 2.0))
    torch.library.opcheck(doubled, (torch.ones(3),))
