"""Linear layers for a few rows at a time, as decoding has them: a stream over weights that stay."""

from collections.abc import Callable, Sequence
from functools import cache

from torch import Generator, Tensor, randn

from model.ops import _native
from model.ops.row_linear import native
from model.ops.row_linear.torch import Blocks

__all__ = ["row_linear"]


def row_linear(
    weights: Sequence[Tensor], biases: Sequence[Tensor | None], *, backend: _native.StepBackend = "auto"
) -> Callable[[Tensor], Tensor]:
    """Several linear layers of the same input as one function, without gradients.

    Args:
        weights: (out, in) each.
        biases: (out,) or None each.
        backend: "torch", which lays a second copy of the weights out for the stream; "native", in C, which reads them
            where they are, for fp32 on a CPU; "auto" takes that where it can.

    Returns:
        A function (rows, in) -> (rows, sum of outs), the outputs one after another; inputs have the weights' dtype.
    """
    tensors = [None if tensor is None else tensor.detach() for tensor in (*weights, *biases)]
    return (native.Rows if _native.chosen(backend, tensors, _works) else Blocks)(weights, biases)


@cache
def _works() -> bool:
    """Whether the C kernel is there and does on a small input what torch does; asked once per process."""
    if native.kernel() is None:
        return False
    make = Generator().manual_seed(0)
    weights = [randn(shape, generator=make) for shape in ((40, 21), (5, 21))]
    biases = [None, randn(5, generator=make)]
    inputs = [randn(rows, 21, generator=make) for rows in (1, 2, 7, 19)]
    ours, theirs = native.Rows(weights, biases), Blocks(weights, biases)
    return _native.agree("row_linear", [ours(x) for x in inputs], [theirs(x) for x in inputs])
