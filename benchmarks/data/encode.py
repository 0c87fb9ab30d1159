"""Run tokenize as its command does, or only its encoding, for `benchmarks.data.tokenize`.

python -m benchmarks.data.encode stage|encode CLEAN TOKENIZER OUT fast|plain WORKERS SEQLEN
"""

from __future__ import annotations

import sys


def main() -> None:
    """Fill OUT; heavy imports inside, as in the command of a stage: its workers import this module too."""
    from pathlib import Path

    from pipeline.shards import Kept, Local
    from pipeline.work import WorkFolder

    part, clean, tokenizer, out, fast, workers, seqlen = sys.argv[1:]
    executor, work, given = Local(int(workers)), WorkFolder(Path(out)), Path(tokenizer)
    if part == "encode":
        from pipeline.tokenize.encoding import encode_shards

        sources = sorted(Path(clean, "train").glob("*.parquet"))
        encoded = work.scratch / "encoded"
        encode_shards(sources, encoded, given.parent, fast=fast == "fast", executor=executor, kept=Kept.of(work))
        return
    from dataclasses import replace

    from pipeline.params import EMBEDDED, load_params
    from pipeline.tokenize.run import tokenize

    params = replace(
        load_params().tokenize, tokenizer=tokenizer, chat_template=EMBEDDED, seqlen=int(seqlen), fast=fast == "fast"
    )
    tokenize(Path(clean), work, params, checkpoint=EMBEDDED, executor=executor)


if __name__ == "__main__":
    main()
