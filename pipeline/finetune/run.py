"""Fine-tune every weight of the base model."""

from __future__ import annotations

from pathlib import Path

from model import load_pretrained
from pipeline.params import Params
from pipeline.tracking import Run
from pipeline.training.session import run_training, training_rows


def finetune(tokens: Path, base: Path, params: Params, run: Run) -> None:
    """Publish the fine-tuned model under artifacts/finetune/."""
    rows = training_rows(tokens, prefer="conversations")
    run_training(
        "finetune",
        lambda: load_pretrained(base),
        rows,
        tokens / "tokenizer",
        params.finetune,
        params.launch,
        run,
    )
