"""One training stage from packed rows to published outputs; base and finetune differ only in what they hand in."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from model import HybridLM, save_pretrained
from pipeline.params import LaunchParams, TrainParams
from pipeline.rows import Rows, Supervise, open_rows
from pipeline.tracking import Run
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.device import make_deterministic, pick_device
from pipeline.training.history import History
from pipeline.training.trainer import total_steps, train
from pipeline.work import WorkFolder, publish_directory


def training_rows(tokens: Path, prefer: str) -> tuple[Rows, Rows]:
    """The train and validation rows of the kind `prefer` ("documents" or "conversations"), or of the other kind.

    Where documents stand in for conversations or the other way round, all tokens are supervised.

    Raises:
        ValueError: there is no train or no validation split of the kind.
    """
    other = {"documents": "conversations", "conversations": "documents"}[prefer]
    kind = prefer if (tokens / prefer / "train").exists() else other
    supervise: Supervise = "response" if kind == prefer else "all"
    for split in ("train", "validation"):
        if not (tokens / kind / split).exists():
            raise ValueError(
                f"{tokens / kind}: there is no {split} split of {kind}; raise preprocess.{split}_fraction, "
                f"or bring a {split} file of your own"
            )
    return open_rows(tokens / kind / "train", supervise), open_rows(tokens / kind / "validation", supervise)


def run_training(
    build: Callable[[], HybridLM],
    rows: tuple[Rows, Rows],
    tokenizer: Path,
    params: TrainParams,
    launch: LaunchParams,
    run: Run,
    work: WorkFolder,
) -> None:
    """Train what `build` returns and write it to `work.out` (layout: docs/artifacts.md)."""
    device = pick_device(launch.device)
    make_deterministic(params.seed)
    model = build().to(device)
    steps = total_steps(params, rows[0])
    checkpoints = Checkpoints(
        work.scratch / "checkpoints", launch.checkpoint_seconds, lambda step: work.progress(step, steps, "step")
    )
    history = train(model, *rows, params, device, checkpoints, run.log_metrics)
    write_model(work.out, model, tokenizer, history, run)


def write_model(target: Path, model: HybridLM, tokenizer: Path, history: History, run: Run) -> None:
    """Write the model with its tokenizer, the curves, and the figures of the run; all of it or nothing."""
    metrics: dict[str, float] = {
        "parameters": model.config.num_parameters(),
        "steps": history.kept_step,
        "tokens": history.tokens,
    }
    if history.validation:
        metrics["validation_loss"] = min(history.validation, key=lambda point: abs(point["step"] - history.kept_step))[
            "loss"
        ]
    speed = {
        "tokens_per_second": history.tokens / history.seconds if history.seconds else 0.0,
        "peak_memory_mb": history.peak_memory_mb,
    }
    with publish_directory(target) as building:
        save_pretrained(model.cpu(), building / "model")
        for file in sorted(tokenizer.iterdir()):
            shutil.copyfile(file, building / "model" / file.name)
        _write_curve(building / "curves" / "train.csv", history.train, ["step", "tokens", "loss", "grad_norm", "lr"])
        _write_curve(building / "curves" / "validation.csv", history.validation, ["step", "tokens", "loss"])
        for name, figures in (("metrics.json", metrics), ("speed.json", speed)):
            (building / name).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    run.log_metrics({**metrics, **speed}, tokens=history.tokens)
    run.log_artifact(target / "curves")


def _write_curve(path: Path, points: list[dict[str, float]], columns: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(points)
