"""Run preprocess with the parameters of params.yaml but for `near_duplicates`.

    python -m benchmarks.data.deduplicate SOURCE WORK exact|near WORKERS

SOURCE is as ingest writes it; the outputs are in WORK/done/out.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run it; the imports are here, because worker processes import this module, too."""
    from dataclasses import replace
    from pathlib import Path

    from pipeline.params import load_params
    from pipeline.shards import executor_for, read_manifest, shard_names
    from pipeline.work import WorkFolder

    source, work, kind, workers = sys.argv[1:]
    params = load_params()
    launch = replace(params.launch, workers=int(workers))
    shards = len(shard_names(read_manifest(Path(source))))
    with executor_for(launch, jobs=shards, module="pipeline.preprocess.annotate") as executor:  # as the stage does
        from pipeline.preprocess.run import preprocess

        chosen = replace(params.preprocess, near_duplicates=kind == "near", contamination_words=0)
        preprocess(Path(source), WorkFolder(Path(work)), chosen, executor=executor)


if __name__ == "__main__":
    main()
