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


CUT = 2.0**-7
"""What Triton's interpreter, which cuts bits off instead of rounding to bf16, adds to an error."""


def as_good(name: str, ours: Tensor, torchs: Tensor, truth: Tensor) -> None:
    """A kernel's error is at most twice that of torch's operators in the same precision, and one rounding.

    Both compute in their own order, so that either may be the luckier one; where torch happens to be exact, or a
    tensor has few elements, its error says little, and the rounding of a result to the tensor's dtype is left.
    """
    assert bool(ours.isfinite().all()), name
    rounding = 8 * 2.0**-24 if ours.dtype == torch.float32 else torch.finfo(ours.dtype).eps
    if ours.dtype == torch.bfloat16 and not ours.is_cuda:
        rounding += CUT
    mine, theirs = error(ours, truth), error(torchs, truth)
    assert mine <= 2 * theirs + rounding, f"{name}: {mine:.1e}, torch's {theirs:.1e}"
