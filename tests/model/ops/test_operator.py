"""What every operator has from its registration; the operators' own tests check each by torch.library.opcheck."""

import pytest
import torch

from model.ops._operator import LIBRARY, operator
from model.ops.gated_rmsnorm import gated_rmsnorm


def test_gradients_have_no_gradients(device: torch.device) -> None:
    """An error, not a wrong result: the backwards are written by hand, once."""
    x, weight = torch.randn(4, 8, device=device, requires_grad=True), torch.ones(8, device=device)
    (gradient,) = torch.autograd.grad(gated_rmsnorm(x, weight, backend="torch").sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="gated_rmsnorm_backward has no gradients"):
        gradient.sum().backward()


def test_a_function_is_an_operator_under_its_name() -> None:
    def _doubled(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    doubled = operator(_doubled, torch.empty_like)
    assert doubled is torch.ops.mamba2.doubled.default
    assert LIBRARY.ns == "mamba2"
    assert torch.equal(doubled(torch.ones(3)), torch.full((3,), 2.0))
    torch.library.opcheck(doubled, (torch.ones(3),))
