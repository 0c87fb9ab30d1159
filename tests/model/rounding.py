"""What a kernel may lose in low precision."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.model.compare import error

SMALL = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
"""Half a unit in the last place of a result; in fp32, where sums of thousands have another order, some more."""


def assert_as_good(
    names: Sequence[str], ours: Sequence[Tensor], torchs: Sequence[Tensor], exact: Sequence[Tensor]
) -> None:
    """Each of ours is at most twice as far from the truth as torch's in the same precision, plus a rounding.

    Twice, since the order of sums and where a product is rounded are free, and what torch gets right by luck (sums of a
    few small numbers) is no measure; more would be a lower precision on the way. Triton's interpreter cuts off the bits
    that bf16 has not, where a GPU rounds: a whole unit.
    """
    for name, mine, other, truth in zip(names, ours, torchs, exact, strict=True):
        assert mine.dtype == other.dtype, name
        assert bool(mine.isfinite().all()), name
        small = SMALL[mine.dtype] * (2 if mine.device.type == "cpu" and mine.dtype is torch.bfloat16 else 1)
        allowed = 2 * error(other, truth) + small
        assert error(mine, truth) <= allowed, f"{name}: {error(mine, truth):.1e}, allowed {allowed:.1e}"
