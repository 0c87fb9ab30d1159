"""What an evaluation comes to, before anyone writes it down."""

from __future__ import annotations

from dataclasses import dataclass

Figures = dict[str, dict[str, float]]
"""By model (or baseline), then by figure."""


@dataclass(frozen=True)
class Measured:
    """`metrics` are the same wherever they are computed; `speed` is this machine's."""

    metrics: Figures
    speed: Figures
    samples: list[dict[str, str]]
    """`id`, `prompt` and `reference`, and each model's response under its name."""
