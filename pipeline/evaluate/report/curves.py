"""The losses of training, as the stages left them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Curve:
    """A loss, in nats per token, against tokens seen."""

    tokens: list[float]
    loss: list[float]


@dataclass(frozen=True)
class Curves:
    """How one model was trained."""

    train: Curve
    validation: Curve

    @property
    def tokens(self) -> int:
        """Seen in all."""
        return int(self.train.tokens[-1])

    @property
    def best(self) -> tuple[float, int]:
        """The lowest validation loss, and the tokens seen by then."""
        loss, tokens = min(zip(self.validation.loss, self.validation.tokens, strict=True))
        return loss, int(tokens)


def read_curves(directory: Path) -> Curves | None:
    """The curves in `directory`; None where nothing was trained (the base model was given)."""
    if not directory.is_dir():
        return None
    train = _read(directory / "train.csv")
    return Curves(train, _read(directory / "validation.csv")) if train.tokens else None


def _read(path: Path) -> Curve:
    with path.open(newline="") as file:
        points = [(float(row["tokens"]), float(row["loss"])) for row in csv.DictReader(file)]
    return Curve([tokens for tokens, _ in points], [loss for _, loss in points])
