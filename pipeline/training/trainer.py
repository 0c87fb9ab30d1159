"""The training loop: accumulation, clipping, schedule, validation, the best or last weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from model import HybridLM
from pipeline.params import BudgetUnit, Keep, TrainParams
from pipeline.process import Interrupted, held_back
from pipeline.progress import Progress
from pipeline.rows import Rows
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.device import autocast, peak_memory_mb
from pipeline.training.history import History, Point
from pipeline.training.loader import Batch, in_order
from pipeline.training.loss import SetLoss, set_loss
from pipeline.training.optimizer import build_optimizer, learning_rate
from pipeline.training.order import batch_of_step, micro_batches


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
    checkpoints: Checkpoints,
    observe: Callable[[Point, int], None],
) -> History:
    """Train `model`, in place, on the supervised tokens of `rows`; it ends with the weights of `params.keep`.

    Where `checkpoints` has one, training goes on from there, to the same bits as without a stop.

    Args:
        model: on `device`, fp32.
        validation: rows whose loss decides which weights are the best.
        observe: called with metrics and the tokens seen so far; after a stop with those from before it, too.

    Raises:
        ValueError: the loss is no longer a finite number.
        Interrupted: by a signal, once a checkpoint is written.
    """
    steps = total_steps(params, rows)
    optimizer = build_optimizer(model, params)
    first, history, best = _restore(checkpoints, model, optimizer)
    for tokens, metrics in history.observations():
        observe(metrics, tokens)

    def save(step: int) -> None:
        checkpoints.save(step, training_state(step, model, optimizer, history), {"best": best})

    model.train()
    with held_back() as told_to_stop, Progress("training", steps, unit="step", done=first) as progress:
        progress.line(
            f"{model.config.num_parameters():,} parameters, {len(rows):,} rows of {rows.seqlen} tokens, "
            f"{steps} steps of {params.batch_size} rows on {device}"
            + (f"; going on after step {first}" if first else "")
        )
        for step in range(first, steps):
            start = time.perf_counter()
            rate = learning_rate(step, steps, params)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = batch_of_step(len(rows), params.batch_size, params.seed, step)
            loss, norm = _step(model, optimizer, rows, batch, params, device)
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
                if params.keep is Keep.best and measured.mean < _best_loss(history):
                    history.kept_step = step + 1
                    best = _weights(model)
                history.validation.append({"step": step + 1, "tokens": history.tokens, "loss": measured.mean})
                observe(history.validated(), history.tokens)
                progress.line(
                    f"step {step + 1}/{steps}: validation loss {measured.mean:.4f}, "
                    f"{history.tokens / history.seconds:,.0f} tokens/s"
                )
            progress.advance()
            if signal := told_to_stop():
                save(step + 1)
                checkpoints.wait()
                raise Interrupted(signal, f" at step {step + 1} of {steps}")
            if checkpoints.due():
                save(step + 1)
    checkpoints.wait()
    if params.keep is Keep.last:
        history.kept_step = steps
    elif history.kept_step != steps and best:
        model.load_state_dict(best)
    history.peak_memory_mb = peak_memory_mb(device)
    return history


def _step(
    model: HybridLM,
    optimizer: torch.optim.Optimizer,
    rows: Rows,
    indices: np.ndarray,
    params: TrainParams,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One optimizer step on the mean loss over the batch's supervised tokens, however it is cut into micro-batches."""
    micro = [Batch(rows, part, device) for part in micro_batches(indices, params.micro_batch_size)]
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


def _best_loss(history: History) -> float:
    return min((point["loss"] for point in history.validation), default=math.inf)


def _weights(model: HybridLM) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def training_state(step: int, model: HybridLM, optimizer: torch.optim.Optimizer, history: History) -> dict[str, Any]:
    """All that training needs to go on to the same bits, but for what never changes."""
    return {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generators": _generators(),
        "history": asdict(history),
    }


def _generators() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else states


def _restore(
    checkpoints: Checkpoints, model: HybridLM, optimizer: torch.optim.Optimizer
) -> tuple[int, History, dict[str, torch.Tensor] | None]:
    """The step to go on from, what happened before it, and the best weights so far."""
    state = checkpoints.newest()
    if state is None:
        return 0, History(), None
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["generators"]["cpu"])
    if "cuda" in state["generators"]:
        torch.cuda.set_rng_state(state["generators"]["cuda"])
    return state["step"], History(**state["history"]), state["best"]


def _finite(name: str, value: float, step: int) -> float:
    if not math.isfinite(value):
        raise ValueError(f"the {name} is {value} at step {step + 1}; lower lr or grad_clip")
    return value
