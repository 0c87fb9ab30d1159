"""Measure the base and the fine-tuned model on the held-out test split, beside n-gram baselines.

Reads data/clean, data/tokens, artifacts/base and artifacts/finetune, writes artifacts/evaluate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.command import stage

if TYPE_CHECKING:
    from pipeline.params import Params
    from pipeline.tracking import Run
    from pipeline.work import WorkFolder


def main(params: Params, run: Run, work: WorkFolder) -> None:
    from pathlib import Path

    from pipeline.evaluate.run import evaluate

    evaluate(Path("data/clean"), Path("data/tokens"), work.out, params.evaluate, params.launch, run)


if __name__ == "__main__":
    stage("evaluate", "artifacts/evaluate", main, __doc__)
