"""A linear layer of weights that stay, laid out for a few rows at a time, as decoding has them."""

from collections.abc import Callable, Sequence
from functools import cache

from torch import Generator, Tensor, randn

from model.ops import _native
from model.ops.packed_linear import native
from model.ops.packed_linear.torch import Blocks

__all__ = ["pack_linear"]


def pack_linear(
    weights: Sequence[Tensor], bias: Tensor | None = None, *, backend: _native.StepBackend = "auto"
) -> Callable[[Tensor], Tensor]:
    """Lay copies of weights out for a stream over them.

    Args:
        weights: (out, in) each; their outputs stand one after another.
        bias: (all outs,).
        backend: "torch"; "native", in C, for fp32 on a CPU; "auto" takes that where it can.

    Returns:
        A function (rows, in) -> (rows, all outs), without gradients, of inputs of the weights' dtype.
    """
    if _native.chosen(backend, [tensor.detach() for tensor in weights], _works):
        return native.Panels(weights, bias)
    return Blocks(weights, bias)


@cache
def _works() -> bool:
    """Whether the C kernel is there and does on a small input what torch does; asked once per process."""
    if native.kernel() is None:
        return False
    make = Generator().manual_seed(0)
    weights = [randn(shape, generator=make) for shape in ((40, 7), (5, 7))]
    bias, x = randn(45, generator=make), randn(9, 7, generator=make)
    return _native.agree("panels_times", [native.Panels(weights, bias)(x)], [Blocks(weights, bias)(x)])
