"""The training loop: accumulation, clipping, schedule, validation, the best or last weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from model import HybridLM, load_pretrained, save_pretrained
from pipeline.params import BudgetUnit, Keep, TrainParams
from pipeline.progress import Progress
from pipeline.rows import Rows
from pipeline.training.device import autocast, peak_memory_mb
from pipeline.training.loader import Batch, in_order, shuffled_indices
from pipeline.training.loss import SetLoss, set_loss
from pipeline.training.optimizer import build_optimizer, learning_rate


@dataclass
class History:
    """What a run went through. Deterministic but for `seconds` and `peak_memory_mb`."""

    train: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    kept_step: int = 0
    tokens: int = 0
    seconds: float = 0.0  # of training steps alone
    peak_memory_mb: float = 0.0


def total_steps(params: TrainParams, rows: Rows) -> int:
    """The optimizer steps that the budget comes to.

    A step sees `batch_size` rows of `seqlen` tokens, padding included; a budget that ends inside a step is rounded up.
    """
    if params.budget_unit is BudgetUnit.steps:
        return int(params.budget)
    if params.budget_unit is BudgetUnit.tokens:
        return math.ceil(params.budget / (params.batch_size * rows.seqlen))
    return math.ceil(params.budget * len(rows) / params.batch_size)


def train(
    model: HybridLM,
    rows: Rows,
    validation: Rows,
    params: TrainParams,
    device: torch.device,
    work: Path,
    observe: Callable[[dict[str, float], int], None],
) -> tuple[HybridLM, History]:
    """Train `model` on the supervised tokens of `rows`.

    Args:
        model: on `device`, fp32; trained in place.
        validation: rows whose loss decides which weights are the best.
        work: a directory of our own for the best weights so far.
        observe: called with metrics and the tokens seen so far.

    Returns:
        The model with the weights that `params.keep` asks for, and the run's history.

    Raises:
        ValueError: the loss is no longer a finite number.
    """
    steps = total_steps(params, rows)
    optimizer = build_optimizer(model, params)
    history = History()
    best = math.inf
    model.train()
    order = shuffled_indices(len(rows), params.batch_size, params.seed)
    with Progress("training", steps, unit="step") as progress:
        for step in range(steps):
            start = time.perf_counter()
            rate = learning_rate(step, steps, params)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, norm = _step(model, optimizer, rows, next(order), params, device)
            history.tokens += params.batch_size * rows.seqlen
            last = step == steps - 1
            if step % params.log_every == 0 or last:
                point = {"loss": _finite("training loss", loss.item(), step), "grad_norm": norm.item(), "lr": rate}
                history.train.append({"step": step + 1, "tokens": history.tokens, **point})
                observe(point, history.tokens)
                progress.note(loss=point["loss"])
            history.seconds += time.perf_counter() - start
            if (step + 1) % params.validate_every == 0 or last:
                measured = _validate(model, validation, params, device)
                _finite("validation loss", measured.mean, step)
                history.validation.append({"step": step + 1, "tokens": history.tokens, "loss": measured.mean})
                observe({"validation_loss": measured.mean}, history.tokens)
                progress.line(
                    f"step {step + 1}/{steps}: validation loss {measured.mean:.4f}, "
                    f"{history.tokens / history.seconds:,.0f} tokens/s"
                )
                if params.keep is Keep.best and measured.mean < best:
                    best = measured.mean
                    history.kept_step = step + 1
                    save_pretrained(model, work / "best")
            progress.advance()
    if params.keep is Keep.last:
        history.kept_step = steps
    elif history.kept_step != steps:
        model = load_pretrained(work / "best", device=device)
    history.peak_memory_mb = peak_memory_mb(device)
    return model, history


def _step(
    model: HybridLM,
    optimizer: torch.optim.Optimizer,
    rows: Rows,
    indices: np.ndarray,
    params: TrainParams,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One optimizer step on the mean loss over the batch's supervised tokens, however it is cut into micro-batches."""
    size = params.micro_batch_size
    micro = [Batch(rows, indices[first : first + size], device) for first in range(0, len(indices), size)]
    targets = max(1, sum(batch.targets for batch in micro))
    total = torch.zeros((), device=device)
    optimizer.zero_grad(set_to_none=True)
    for batch in micro:
        with autocast(device, params.precision):
            output = model(batch.input_ids, labels=batch.labels, seq_idx=batch.seq_idx)
        share = output.loss * (batch.targets / targets)
        share.backward()
        total += share.detach()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), params.grad_clip)
    optimizer.step()
    return total, norm


def _validate(model: HybridLM, validation: Rows, params: TrainParams, device: torch.device) -> SetLoss:
    batches = in_order(min(len(validation), params.validation_rows), params.micro_batch_size)
    return set_loss(model, validation, batches, device, params.precision)


def _finite(name: str, value: float, step: int) -> float:
    if not math.isfinite(value):
        raise ValueError(f"the {name} is {value} at step {step + 1}; lower lr or grad_clip")
    return value
