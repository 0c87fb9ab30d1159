"""How the model's tests compare tensors."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def error(actual: Tensor, expected: Tensor) -> float:
    """max|actual - expected| / max|expected|; the plain difference where expected is all zero."""
    assert actual.shape == expected.shape
    if actual.numel() == 0:
        return 0.0
    difference = (actual.double() - expected.double()).abs().max().item()
    scale = expected.double().abs().max().item()
    return difference / scale if scale > 0 else difference


def assert_agree(actual: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Every tensor agrees to `tolerance`; NaN never does."""
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert error(a, e) <= tolerance, f"tensor {i}: error {error(a, e):.2e} above {tolerance:.0e}"


def outputs_and_gradients(
    function: Callable[[], Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor], seed: int = 1
) -> list[Tensor]:
    """The outputs, and the gradients of a fixed random projection of all of them."""
    outputs = function()
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o) for o in outputs]
    total = sum((o * w).sum() for o, w in zip(outputs, weights, strict=True))
    gradients = torch.autograd.grad(total, inputs, allow_unused=True)
    zeros = (torch.zeros_like(i) if g is None else g for g, i in zip(gradients, inputs, strict=True))
    return [*(o.detach() for o in outputs), *zeros]
