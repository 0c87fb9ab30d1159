"""Clean what ingest read, drop what is too short, too long, empty or a duplicate, and split the rest by group into
train, validation and test: data/ingested/ -> data/clean/. data/README.md describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.command import report, stage

if TYPE_CHECKING:
    from pipeline.params import Params
    from pipeline.tracking import Run


def main(params: Params, run: Run) -> None:
    """Run the stage and log its totals."""
    from pathlib import Path

    from pipeline.preprocess.run import preprocess

    source, out = Path("data/ingested"), Path("data/clean")
    report("preprocess", run, preprocess(source, out, params.preprocess, workers=params.launch.workers))


if __name__ == "__main__":
    stage("preprocess", main, __doc__)
