"""Clean what ingest read, drop what is too short, too long, empty, a duplicate, or against the rules that params.yaml
asks for, split the rest by group into train, validation and test, and mix the sources: data/ingested/ -> data/clean/.
data/README.md describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.params import Params
    from pipeline.tracking import Run
    from pipeline.work import WorkFolder


def main(params: Params, run: Run, work: WorkFolder) -> None:
    """Run the stage and log its totals."""
    from pathlib import Path

    from pipeline.command import report
    from pipeline.shards import executor_for, read_manifest, shard_names

    source = Path("data/ingested")
    shards = len(shard_names(read_manifest(source)))
    with executor_for(params.launch, jobs=shards, module="pipeline.preprocess.annotate") as executor:
        from pipeline.preprocess.run import preprocess

        totals = preprocess(source, work, params.preprocess, executor=executor)
    report("preprocess", run, totals)


if __name__ == "__main__":
    from pipeline.command import stage  # here: worker processes import this file, too

    stage("preprocess", "data/clean", main, __doc__)
