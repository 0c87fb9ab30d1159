"""Training goes on after a stop, to the same bits; checkpoints are whole or not used."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from model import HybridConfig, HybridLM
from pipeline.params import Keep, TrainParams, load_params
from pipeline.process import Interrupted, stop_on_signals
from pipeline.rows import NEVER, RESPONSE, Rows
from pipeline.training.checkpoint import KEEP, Checkpoints
from pipeline.training.device import make_deterministic
from pipeline.training.history import History
from pipeline.training.trainer import train

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
CONFIG = HybridConfig(pattern="M*-", vocab_size=32, d_model=16, d_state=8, headdim=8, n_heads=2, n_kv_heads=1, d_ff=32)
STEPS = 12


class StoppedError(Exception):
    """The test's own way to stop a run between two steps."""


@pytest.fixture
def params(monkeypatch) -> TrainParams:
    monkeypatch.chdir(ROOT)
    small = {"budget": STEPS, "batch_size": 4, "micro_batch_size": 2, "validate_every": 3, "log_every": 1, "lr": 3e-2}
    return dataclasses.replace(load_params().base, **small)


def rows(count: int, seed: int) -> Rows:
    ids = np.random.default_rng(seed).integers(0, 32, (count, 16)).astype(np.uint16)
    mask = np.full_like(ids, RESPONSE, dtype=np.uint8)
    mask[:, 0] = NEVER
    return Rows("response", ids, mask, np.zeros_like(ids))


class Run:
    """One attempt at training in `folder`; `stop_at` ends it after that step, as nothing but its checkpoints knows."""

    def __init__(self, params: TrainParams, folder: Path, stop_at: int = 0, every: float = 0.0) -> None:
        self.seen: list[tuple[dict[str, float], int]] = []
        self.stop_at = stop_at
        make_deterministic(params.seed)
        self.model = HybridLM(CONFIG)
        self.checkpoints = Checkpoints(folder, every)
        self.checkpoints.due = lambda: True  # after every step, however fast steps are
        self.history: History | None = None
        try:
            self.history = train(self.model, rows(10, 0), rows(4, 1), params, CPU, self.checkpoints, self.observe)
        except StoppedError:
            self.checkpoints.wait()

    def observe(self, metrics: dict[str, float], tokens: int) -> None:
        self.seen.append((metrics, tokens))
        if self.stop_at and tokens > self.stop_at * 4 * 16:
            raise StoppedError

    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])

    def points(self) -> tuple:
        assert self.history
        return self.history.train, self.history.validation, self.history.kept_step, self.history.tokens


@pytest.mark.parametrize("keep", list(Keep))
def test_stopped_anywhere_and_gone_on_with_is_bitwise_the_same(params, tmp_path, keep):
    params = dataclasses.replace(params, keep=keep)
    whole = Run(params, tmp_path / "whole")
    assert keep is Keep.last or whole.history.kept_step < STEPS  # so that the best weights matter
    for stop in range(1, STEPS):
        folder = tmp_path / str(stop)
        assert Run(params, folder, stop_at=stop).history is None
        resumed = Run(params, folder)
        assert torch.equal(resumed.weights(), whole.weights()), stop
        assert resumed.points() == whole.points()
        assert resumed.seen == whole.seen  # its run shows the curves from the start


def test_stopped_again_and_again(params, tmp_path):
    whole = Run(params, tmp_path / "whole")
    for stop in (2, 5, 5, 9):
        Run(params, tmp_path / "stopped", stop_at=stop)
    assert torch.equal(Run(params, tmp_path / "stopped").weights(), whole.weights())


def test_two_checkpoints_stay_and_latest_is_the_newest(params, tmp_path):
    Run(params, tmp_path, stop_at=7)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000006", "step-00000007"]
    assert os.readlink(tmp_path / "latest") == "step-00000007"
    assert KEEP == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "no seal", "broken seal"])
def test_a_damaged_checkpoint_is_named_and_skipped_for_the_one_before(params, tmp_path, capsys, damage):
    whole = Run(params, tmp_path / "whole")
    Run(params, tmp_path / "w", stop_at=7)
    state, seal = tmp_path / "w/step-00000007/state.pt", tmp_path / "w/step-00000007/sha256.json"
    content = bytearray(state.read_bytes())
    if damage == "cut":
        state.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    elif damage == "remove":
        state.unlink()
    elif damage == "no seal":
        seal.unlink()
    else:
        seal.write_text('{"state.pt": ')
    resumed = Run(params, tmp_path / "w")
    warning = capsys.readouterr().err
    assert "step-00000007" in warning
    assert "skipped for the one before" in warning
    assert "step-00000006" not in warning
    assert torch.equal(resumed.weights(), whole.weights())


def test_with_every_checkpoint_damaged_training_starts_anew(params, tmp_path, capsys):
    whole = Run(params, tmp_path / "whole")
    Run(params, tmp_path / "w", stop_at=7)
    for path in (tmp_path / "w").glob("step-*/state.pt"):
        path.write_bytes(b"")
    assert torch.equal(Run(params, tmp_path / "w").weights(), whole.weights())
    assert capsys.readouterr().err.count("warning: ") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_ends_training(params, tmp_path, number):
    whole = Run(params, tmp_path / "whole")
    old = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    stop_on_signals()

    def tell(metrics: dict[str, float], tokens: int) -> None:
        if tokens == 5 * 4 * 16:
            os.kill(os.getpid(), number)

    try:
        make_deterministic(params.seed)
        rare = Checkpoints(tmp_path / "w", every=3600)
        with pytest.raises(Interrupted, match=f"at step 5 of {STEPS}") as stop:
            train(HybridLM(CONFIG), rows(10, 0), rows(4, 1), params, CPU, rare, tell)
        assert stop.value.exit_status == 128 + number
    finally:
        for kind, handler in old.items():
            signal.signal(kind, handler)
    assert (tmp_path / "w/step-00000005/sha256.json").exists()
    assert torch.equal(Run(params, tmp_path / "w").weights(), whole.weights())


def test_a_failed_write_stops_training_and_leaves_the_checkpoint_before(params, tmp_path, monkeypatch):
    whole = Run(params, tmp_path / "whole")
    Run(params, tmp_path / "w", stop_at=4)
    save, calls = torch.save, []

    def full(state: dict, path: Path) -> None:
        calls.append(threading.current_thread())
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        Run(params, tmp_path / "w")
    assert threading.main_thread() not in calls  # training does not wait for the disk
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == ["latest", "step-00000003", "step-00000004"]
    monkeypatch.setattr(torch, "save", save)
    assert torch.equal(Run(params, tmp_path / "w").weights(), whole.weights())


def test_what_a_kill_left_half_written_is_removed(params, tmp_path):
    whole = Run(params, tmp_path / "whole")
    Run(params, tmp_path / "w", stop_at=4)
    shutil.copytree(tmp_path / "w/step-00000004", tmp_path / "w/.step-00000005.tmp")
    resumed = Run(params, tmp_path / "w")
    assert torch.equal(resumed.weights(), whole.weights())
    assert not list((tmp_path / "w").glob(".*"))


def test_checkpoints_come_by_the_clock_and_take_little_of_it(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("pipeline.training.checkpoint.time.monotonic", lambda: now)
    checkpoints = Checkpoints(tmp_path, every=30)
    now = 29.0
    assert not checkpoints.due()
    now = 30.0
    assert checkpoints.due()
    checkpoints.save(1, {}, {})
    checkpoints.wait()
    assert not checkpoints.due()
    checkpoints._took = 60.0  # a disk so slow that a minute goes into each: 5 % of the time at most
    now = 30.0 + 1199
    assert not checkpoints.due()
    now = 30.0 + 1200
    assert checkpoints.due()
