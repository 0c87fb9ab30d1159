"""The trainer on a tiny model: what it promises about order, accumulation, schedule and the weights it keeps."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from model import HybridConfig, HybridLM
from pipeline.params import BudgetUnit, Keep, Precision, TrainParams, load_params
from pipeline.rows import NEVER, RESPONSE, Rows
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.device import make_deterministic
from pipeline.training.history import History
from pipeline.training.loader import in_order
from pipeline.training.loss import set_loss
from pipeline.training.optimizer import build_optimizer, learning_rate
from pipeline.training.trainer import total_steps, train

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
CONFIG = HybridConfig(pattern="M*-", vocab_size=32, d_model=16, d_state=8, headdim=8, n_heads=2, n_kv_heads=1, d_ff=32)


@pytest.fixture
def params(monkeypatch) -> TrainParams:
    monkeypatch.chdir(ROOT)
    return dataclasses.replace(
        load_params().base, budget=6, batch_size=4, micro_batch_size=4, validate_every=2, validation_rows=4, log_every=1
    )


def make_rows(count: int, seed: int = 0, seqlen: int = 16) -> Rows:
    """Counting sequences (each token is the one before plus one): something that can be learned."""
    random = np.random.default_rng(seed)
    ids = ((random.integers(0, 32, (count, 1)) + np.arange(seqlen)) % 32).astype(np.uint16)
    seq_idx = np.repeat((np.arange(seqlen) >= random.integers(2, seqlen, (count, 1)))[:, :], 1, axis=0).astype(
        np.uint16
    )
    first = np.diff(seq_idx, axis=1, prepend=-1) != 0
    return Rows(
        input_ids=ids,
        loss_mask=np.where(first, NEVER, RESPONSE).astype(np.uint8),
        seq_idx=seq_idx,
        supervise="response",
    )


def run(params: TrainParams, work: Path, validation: Rows | None = None) -> tuple[HybridLM, History, list]:
    make_deterministic(params.seed)
    seen: list = []
    model = HybridLM(CONFIG)
    history = train(
        model,
        make_rows(10),
        validation or make_rows(4, seed=1),
        params,
        CPU,
        Checkpoints(work, every=3600),
        lambda *event: seen.append(event),
    )
    return model, history, seen


def weights(model: HybridLM) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_in_order_covers_all_rows_once():
    assert np.concatenate(list(in_order(10, 4))).tolist() == list(range(10))


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_learning_rate_warms_up_to_its_peak_and_ends_at_its_floor(params, steps, warmup):
    params = dataclasses.replace(params, warmup_fraction=warmup, lr=2.0, min_lr_ratio=0.1)
    rates = [learning_rate(step, steps, params) for step in range(steps)]
    assert max(rates) == pytest.approx(2.0)
    assert all(0 < rate <= 2.0 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    if steps > 1 and warmup < 1:
        assert rates[-1] == pytest.approx(0.2)


def test_budgets_come_to_steps(params):
    rows = make_rows(10, seqlen=16)
    for unit, budget, steps in [
        ("steps", 5, 5),
        ("tokens", 129, 3),
        ("tokens", 128, 2),
        ("epochs", 1, 3),
        ("epochs", 0.1, 1),
    ]:
        budgeted = dataclasses.replace(params, budget=budget, budget_unit=BudgetUnit[unit])
        assert total_steps(budgeted, rows) == steps, (unit, budget)


def test_accumulation_changes_nothing(params, tmp_path):
    _, whole, _ = run(params, tmp_path / "a")
    for size in (1, 2):
        _, cut, _ = run(dataclasses.replace(params, micro_batch_size=size), tmp_path / "b")
        # fp32 sums in another order; AdamW makes more of the difference from step to step
        assert cut.train[0] == pytest.approx(whole.train[0], rel=1e-5)
        assert cut.train[-1] == pytest.approx(whole.train[-1], rel=1e-2)


@pytest.mark.parametrize("precision", list(Precision))
def test_training_learns_and_repeats_bitwise(params, tmp_path, precision):
    params = dataclasses.replace(params, budget=60, lr=1e-2, validate_every=20, precision=precision)
    model, history, seen = run(params, tmp_path / "a")
    assert history.validation[-1]["loss"] < 0.7 * math.log(32)
    again, _, _ = run(params, tmp_path / "b")
    assert torch.equal(weights(model), weights(again))
    assert history.tokens == 60 * 4 * 16
    assert seen[-1][1] == history.tokens
    assert any("validation_loss" in metrics for metrics, _ in seen)


def test_the_best_weights_are_kept_and_the_last_when_asked(params, tmp_path):
    params = dataclasses.replace(params, budget=40, lr=1e-2, validate_every=10)
    noise = make_rows(4, seed=1)
    noise = dataclasses.replace(noise, input_ids=np.random.default_rng(0).integers(0, 32, noise.input_ids.shape))
    best, history, _ = run(params, tmp_path / "best", validation=noise)  # what it learns makes it worse there
    losses = {point["step"]: point["loss"] for point in history.validation}
    assert history.kept_step == min(losses, key=lambda step: losses[step]) < 40
    measured = set_loss(best, noise, in_order(4, 2), CPU, params.precision)
    assert measured.mean == pytest.approx(losses[history.kept_step], rel=1e-5)
    last, history, _ = run(dataclasses.replace(params, keep=Keep.last), tmp_path / "last", validation=noise)
    assert history.kept_step == 40
    assert not torch.equal(weights(best), weights(last))


def test_a_loss_that_is_not_finite_stops_training(params, tmp_path):
    make_deterministic(0)
    model = HybridLM(CONFIG)
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"training loss is nan at step 1; lower lr"):
        train(model, make_rows(4), make_rows(4), params, CPU, Checkpoints(tmp_path, every=0), lambda *event: None)
    params = dataclasses.replace(params, lr=1e30, budget=1, warmup_fraction=0.0)  # the first step overflows
    with pytest.raises(ValueError, match=r"validation loss is (nan|inf) at step 1; lower lr"):
        run(params, tmp_path)
    assert not list(tmp_path.iterdir())


def test_weight_decay_spares_scales_and_biases(params):
    model = HybridLM(CONFIG)
    decayed, spared = build_optimizer(model, dataclasses.replace(params, weight_decay=0.1)).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    spared_names = {names[id(parameter)] for parameter in spared["params"]}
    for word in ("A_log", "dt_bias", "norm"):
        assert any(word in name for name in spared_names), word
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def test_set_loss_is_the_mean_over_targets_however_rows_are_batched(params):
    make_deterministic(0)
    model, rows = HybridLM(CONFIG), make_rows(7)
    parts = [set_loss(model, rows, in_order(7, size), CPU, params.precision) for size in (1, 3, 7)]
    assert {part.targets for part in parts} == {np.count_nonzero(rows.loss_mask)}
    for part in parts:
        assert part.nats == pytest.approx(parts[0].nats, rel=1e-5)
    assert parts[0].perplexity == pytest.approx(math.exp(parts[0].mean))
