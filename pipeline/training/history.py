"""What a training run goes through, point by point."""

from __future__ import annotations

from dataclasses import dataclass, field

Point = dict[str, float]
"""`step`, `tokens`, and what was measured there."""


@dataclass
class History:
    """Deterministic but for `seconds` and `peak_memory_mb`; outlives a stop in the checkpoints."""

    train: list[Point] = field(default_factory=list)
    validation: list[Point] = field(default_factory=list)
    kept_step: int = 0
    tokens: int = 0
    seconds: float = 0.0  # of training steps alone
    peak_memory_mb: float = 0.0

    def observations(self) -> list[tuple[int, Point]]:
        """Tokens and metrics of every point, in order, as a run is told of them: the same names in every run."""
        steps = [(int(p["tokens"]), {name: p[name] for name in ("loss", "grad_norm", "lr")}) for p in self.train]
        validations = [(int(point["tokens"]), self.validated(at)) for at, point in enumerate(self.validation)]
        return sorted(steps + validations, key=lambda observation: observation[0])

    def validated(self, index: int = -1) -> Point:
        """The metrics of a validation point: its loss, and the best so far."""
        losses = [point["loss"] for point in self.validation]
        return {"validation_loss": losses[index], "best/validation_loss": min(losses[: index % len(losses) + 1])}
