"""The plain torch path: one matrix (in, out), in a block of columns per thread."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Blocks:
    """On a CPU a batched product gives each thread a block, where a product of one row would run on a single one."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        weight = torch.cat([weight.detach().t() for weight in weights], dim=1)
        threads = torch.get_num_threads() if weight.device.type == "cpu" else 1
        count = threads if weight.shape[1] % threads == 0 else 1
        self._blocks = weight.unflatten(1, (count, -1)).movedim(1, 0).contiguous()
        self._bias = _all(weights, biases) if any(bias is not None for bias in biases) else None

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)."""
        y = torch.bmm(x.expand(len(self._blocks), -1, -1), self._blocks).movedim(0, 1).reshape(x.shape[0], -1)
        return y if self._bias is None else y.add_(self._bias)


def _all(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    pairs = zip(weights, biases, strict=True)
    return torch.cat([weight.new_zeros(len(weight)) if bias is None else bias.detach() for weight, bias in pairs])
