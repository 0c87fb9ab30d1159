"""Fine-tune every weight of the base model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from model import load_pretrained
from pipeline.params import Params
from pipeline.tracking import Run
from pipeline.training.session import run_training, training_rows
from pipeline.work import WorkFolder


def finetune(tokens: Path, base: Path, params: Params, run: Run, work: WorkFolder) -> None:
    """Write the fine-tuned model to `work.out`."""
    rows = training_rows(tokens, prefer="conversations")
    build = partial(load_pretrained, base)
    run_training(build, rows, tokens / "tokenizer", params.finetune, params.launch, run, work)
