"""Run tokenize as its command does, or only its encoding, for `benchmarks.data.tokenize`.

python -m benchmarks.data.encode stage|encode CLEAN TOKENIZER OUT fast|plain WORKERS SEQLEN
"""

from __future__ import annotations

import sys


def main() -> None:
    """Fill OUT; heavy imports inside, as in the command of a stage: its workers import this module too."""
    from pathlib import Path

    from pipeline.shards import Local

    part, clean, tokenizer, out, fast, workers, seqlen = sys.argv[1:]
    executor = Local(int(workers))
    if part == "encode":
        from pipeline.tokenize.encode import EncodeJob, encode_shard

        jobs = []
        for source in sorted(Path(clean, "train").glob("*.parquet")):
            folder = Path(out, source.name)
            folder.mkdir(parents=True)
            jobs.append(EncodeJob(source, folder, Path(tokenizer).parent, fast == "fast"))
        for _ in executor.run(encode_shard, jobs):
            pass
        return
    from dataclasses import replace

    from pipeline.params import EMBEDDED, load_params
    from pipeline.tokenize.run import tokenize
    from pipeline.work import WorkFolder

    params = replace(
        load_params().tokenize, tokenizer=tokenizer, chat_template=EMBEDDED, seqlen=int(seqlen), fast=fast == "fast"
    )
    tokenize(Path(clean), WorkFolder(Path(out)), params, checkpoint=EMBEDDED, executor=executor)


if __name__ == "__main__":
    main()
