"""Turn clean text into rows of tokens.

Reads data/clean/, writes data/tokens/: the tokenizer (yours, the checkpoint's, or a byte-level BPE trained on the
training split) and, per kind and split, rows of `tokenize.seqlen` tokens with the mask of what is learned and the
boundaries of the packed sequences. data/README.md has the layout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.params import Params
    from pipeline.tracking import Run
    from pipeline.work import WorkFolder


def main(params: Params, run: Run, work: WorkFolder) -> None:
    from pathlib import Path

    from pipeline.command import report
    from pipeline.shards import executor_for
    from pipeline.tokenize.run import tokenize

    with executor_for(params.launch) as executor:
        checkpoint = params.model.checkpoint
        totals = tokenize(Path("data/clean"), work, params.tokenize, checkpoint=checkpoint, executor=executor)
    report("tokenize", run, totals)


if __name__ == "__main__":
    from pipeline.command import stage  # here: worker processes import this file, too

    stage("tokenize", "data/tokens", main, __doc__)
