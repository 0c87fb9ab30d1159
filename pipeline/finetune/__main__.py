"""Fine-tune the base model on the responses of the conversations (on all tokens of the documents where there are none).

Reads data/tokens and artifacts/base, writes artifacts/finetune.
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

    from pipeline.finetune.run import finetune

    finetune(Path("data/tokens"), Path("artifacts/base/model"), params, run, work)


if __name__ == "__main__":
    stage("finetune", "artifacts/finetune", main, __doc__)
