"""The selective scan and the parameters that must stay fp32."""

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from model.config import HybridConfig
from model.ops.ssd import ssd


class SelectiveScan(nn.Module):
    """The SSD with its per-head parameters A_log, D and dt_bias.

    They and the decays made from them lose the model in half precision, so casting the model (`.half()`,
    `.to(torch.bfloat16)`) moves these parameters but leaves them fp32; `.double()` is honoured.
    """

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.dt_init = (config.dt_min, config.dt_max, config.dt_init_floor)
        self.dt_limit = config.dt_limit
        self.chunk_size = config.chunk_size
        self.A_log = nn.Parameter(torch.empty(config.nheads, dtype=torch.float32))
        self.D = nn.Parameter(torch.empty(config.nheads, dtype=torch.float32))
        self.dt_bias = nn.Parameter(torch.empty(config.nheads, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A uniform in [1, 16], D one, step sizes log-uniform in [dt_min, dt_max] with a floor."""
        dt_min, dt_max, floor = self.dt_init
        with torch.no_grad():
            self.A_log.uniform_(1, 16).log_()
            self.D.fill_(1)
            dt = self.dt_bias.uniform_(math.log(dt_min), math.log(dt_max)).exp_().clamp_(min=floor)
            dt.add_(torch.log(-torch.expm1(-dt)))  # the inverse of softplus

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keep_precision(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            return tensor.to(applied.device) if applied.dtype.itemsize < 4 else applied

        return super()._apply(keep_precision, recurse)

    def forward(
        self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, seq_idx: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Scan whole sequences from `state` (zero if None); shapes as in `ssd`. Return y and the state after."""
        y, final_state = ssd(
            x,
            dt,
            -torch.exp(self.A_log),
            B,
            C,
            D=self.D,
            dt_bias=self.dt_bias,
            dt_softplus=True,
            dt_limit=self.dt_limit,
            initial_state=state,
            seq_idx=seq_idx,
            chunk_size=self.chunk_size,
            return_final_state=True,
        )
        return y, final_state
