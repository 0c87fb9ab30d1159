"""Take model.checkpoint as the base model, or pre-train the model of params.yaml from scratch on the documents.

Reads data/tokens, writes artifacts/base.
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

    from pipeline.base.run import make_base

    make_base(Path("data/tokens"), params, run, work)


if __name__ == "__main__":
    stage("base", "artifacts/base", main, __doc__)
