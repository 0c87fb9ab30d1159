"""Linear layers for a few rows at a time, as decoding has them: a stream over weights that stay."""

from collections.abc import Callable, Sequence
from functools import cache

from torch import Tensor

from model.ops import _native
from model.ops._common import check_shape
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
    ins = weights[0].shape[1]
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        check_shape(f"weights[{i}]", weight, (len(weight), ins))
        if bias is not None:
            check_shape(f"biases[{i}]", bias, (len(weight),))
    tensors = [None if tensor is None else tensor.detach() for tensor in (*weights, *biases)]
    return (native.Rows if _native.chosen(backend, tensors, _works) else Blocks)(weights, biases)


@cache
def _works() -> bool:
    """Whether the C kernel is there and does on a small input what torch does; asked once per process."""
    if native.kernel() is None:
        return False
    first, second, bias, *inputs = _native.small_inputs((40, 21), (5, 21), (5,), (1, 21), (2, 21), (7, 21), (19, 21))
    ours, theirs = (layer([first, second], [None, bias]) for layer in (native.Rows, Blocks))
    return _native.agree("row_linear", [ours(x) for x in inputs], [theirs(x) for x in inputs])
