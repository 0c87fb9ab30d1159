"""Export the fine-tuned model in the format `export.format`, with its tokenizer and a model card.

Reads artifacts/finetune, the metrics of evaluate and the manifests of the data, writes artifacts/export.
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

    from pipeline.export.run import export

    export(Path("artifacts/finetune/model"), work.out, params, run)


if __name__ == "__main__":
    stage("export", "artifacts/export", main, __doc__)
