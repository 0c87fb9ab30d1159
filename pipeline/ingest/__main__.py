"""Read the source of `ingest.source` (the embedded corpus, or files of your own) into data/ingested/, as shards of
documents and conversations; data/README.md describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.params import Params
    from pipeline.tracking import Run
    from pipeline.work import WorkFolder


def main(params: Params, run: Run, work: WorkFolder) -> None:
    """Run the stage and log its totals."""
    from pipeline.command import report
    from pipeline.ingest.run import ingest
    from pipeline.shards import executor_for

    with executor_for(params.launch) as executor:
        report("ingest", run, ingest(work, params.ingest, executor=executor))


if __name__ == "__main__":
    from pipeline.command import stage  # here: worker processes import this file, too

    stage("ingest", "data/ingested", main, __doc__)
