"""The loss of a model on whole sets of rows, as sums, so that sets of any shape combine exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from model import HybridLM
from pipeline.params import Precision
from pipeline.rows import Rows
from pipeline.training.device import autocast
from pipeline.training.loader import Batch


@dataclass(frozen=True)
class SetLoss:
    """Negative log-likelihood in nats summed over `targets` tokens."""

    nats: float
    targets: int

    @property
    def mean(self) -> float:
        return self.nats / self.targets

    @property
    def perplexity(self) -> float:
        return math.exp(self.mean)


@torch.no_grad()
def set_loss(
    model: HybridLM, rows: Rows, batches: Iterable[np.ndarray], device: torch.device, precision: Precision
) -> SetLoss:
    """The model's loss on the supervised tokens of the given batches of row indices."""
    was_training = model.training
    model.eval()
    nats, targets = 0.0, 0
    for indices in batches:
        batch = Batch(rows, indices, device)
        if batch.targets == 0:
            continue
        with autocast(device, precision):
            output = model(batch.input_ids, labels=batch.labels, seq_idx=batch.seq_idx)
        nats += output.loss.item() * batch.targets
        targets += batch.targets
    model.train(was_training)
    return SetLoss(nats, targets)
