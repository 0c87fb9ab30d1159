"""Rotary position embedding, whole or of a part of the channels, with scaled frequencies."""

import math

import torch
from torch import Tensor

from model.config import HybridConfig, RopeScaling


class Rotary:
    """By which angles queries and keys are rotated (Su et al. 2021, arXiv 2104.09864).

    It holds no tensors: what it needs follows from the configuration.
    """

    def __init__(self, theta: float, rotary_dim: int, scaling: RopeScaling | None) -> None:
        self.theta, self.rotary_dim, self.scaling = theta, rotary_dim, scaling

    @classmethod
    def of(cls, config: HybridConfig) -> "Rotary | None":
        """That of a model, None where it has no position embedding."""
        if config.rope_theta is None:
            return None
        return cls(config.rope_theta, config.rotary_dim, config.rope_scaling)

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, fp32, of positions (seqlen,) or (batch, seqlen): (..., rotary_dim / 2) each."""
        angles = positions.unsqueeze(-1) * self.rates(positions.device)
        factor = self.attention_factor()
        return angles.cos() * factor, angles.sin() * factor

    def rates(self, device: torch.device) -> Tensor:
        """(rotary_dim / 2,) radians per position, fp32."""
        half = self.rotary_dim // 2
        rates = self.theta ** -(torch.arange(half, device=device, dtype=torch.float32) / half)
        match self.scaling:
            case None:
                return rates
            case RopeScaling(kind="linear", factor=factor):
                return rates / factor
            case RopeScaling(kind="llama3"):
                return _low_ones_slower(rates, self.scaling)
        return _ramp_to_slower(rates, self.scaling, self.theta)

    def attention_factor(self) -> float:
        """By which the rotated channels are multiplied besides."""
        scaling = self.scaling
        if scaling is None:
            return 1.0
        if scaling.attention_factor is not None:
            return scaling.attention_factor
        return 0.1 * math.log(scaling.factor) + 1.0 if scaling.kind == "yarn" and scaling.factor > 1 else 1.0


def _low_ones_slower(rates: Tensor, scaling: RopeScaling) -> Tensor:
    """Rates of fewer than `low` turns over the original context are divided, more than `high` kept, between mixed."""
    turns = scaling.original_context * rates / (2 * math.pi)
    kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return kept * rates + (1 - kept) * rates / scaling.factor


def _ramp_to_slower(rates: Tensor, scaling: RopeScaling, theta: float) -> Tensor:
    """As above, but the share that is kept falls along the channels."""
    half = len(rates)

    def channel(turns: float) -> float:
        """Where so many turns fit into the original context."""
        return half * math.log(scaling.original_context / (turns * 2 * math.pi)) / math.log(theta)

    low, high = channel(scaling.beta_fast), channel(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * half - 1)
    span = high - low if high != low else 0.001
    kept = 1 - ((torch.arange(half, device=rates.device, dtype=torch.float32) - low) / span).clamp(0, 1)
    return kept * rates + (1 - kept) * rates / scaling.factor
