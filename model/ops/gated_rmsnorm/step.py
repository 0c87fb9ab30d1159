"""The norm of a few rows, for decoding: no custom op, since a call of one costs more than the work."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops import _native
from model.ops._common import check_shape, compute_dtype
from model.ops.gated_rmsnorm import native


class RowNorm:
    """`gated_rmsnorm` with weights that stay, without gradients."""

    def __init__(
        self,
        weight: Tensor,
        *,
        eps: float,
        group_size: int,
        norm_before_gate: bool = False,
        backend: _native.StepBackend = "auto",
    ) -> None:
        """`weight` (d,); `backend`: "torch"; "native", in C, for fp32 on a CPU; "auto" takes that where it can."""
        self._weight = weight.detach()
        self._eps, self._group_size, self._norm_before_gate = eps, group_size, norm_before_gate
        self._backend = backend
        dtype = compute_dtype(weight)
        self._eps_column = self._weight.new_full((1, 1), eps, dtype=dtype)
        self._mean = self._weight.new_full((group_size, 1), 1 / group_size, dtype=dtype)

    def __call__(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """(rows, d) and its gate -> (rows, d) in the dtype of the weight."""
        check_shape("x", x, (x.shape[0], len(self._weight)))
        if gate is not None:
            check_shape("gate", gate, tuple(x.shape))
        if _native.chosen(self._backend, (x, gate, self._weight), _native_works):
            return native.norm(x, gate, self._weight, self._eps, self._group_size, self._norm_before_gate)
        if gate is None:
            return self._norm(x)
        return self._norm(x) * F.silu(gate) if self._norm_before_gate else self._norm(x * F.silu(gate))

    def _norm(self, x: Tensor) -> Tensor:
        """In the fewest operator calls: the mean square is a product with a column of 1 / d."""
        groups = x.to(self._mean.dtype).view(-1, self._group_size)
        inverse = torch.addmm(self._eps_column, groups * groups, self._mean).rsqrt_()
        return (groups * inverse).view(x.shape).mul_(self._weight).to(self._weight.dtype)


@cache
def _native_works() -> bool:
    """Whether the C kernel is there and does on a small input what torch does; asked once per process."""
    if native.kernel() is None:
        return False
    x, gate, weight = _native.small_inputs((3, 36), (3, 36), (36,))
    options = {"eps": 1e-5, "group_size": 12}
    theirs = RowNorm(weight, **options, backend="torch")  # type: ignore[arg-type]
    return _native.agree("row_norm", [native.norm(x, gate, weight, 1e-5, 12, False)], [theirs(x, gate)])
