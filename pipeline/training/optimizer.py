"""AdamW with decay groups, and the learning rate over a run."""

from __future__ import annotations

import math

import torch

from model import HybridLM
from pipeline.params import TrainParams


def build_optimizer(model: HybridLM, params: TrainParams) -> torch.optim.AdamW:
    """AdamW that decays matrices only: A_log, D, dt_bias, norms and biases keep their scale."""
    decayed = model.decay_parameters()
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in trained if name in decayed], "weight_decay": params.weight_decay},
        {"params": [p for name, p in trained if name not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=params.lr, betas=(params.beta1, params.beta2), fused=True)


def learning_rate(step: int, steps: int, params: TrainParams) -> float:
    """The rate of step `step` (from 0) of `steps`: linear warm-up, then a cosine down to `min_lr_ratio` of the peak."""
    warmup = round(params.warmup_fraction * steps)
    if step < warmup:
        return params.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return params.lr * (params.min_lr_ratio + (1 - params.min_lr_ratio) * cosine)
