"""All shards of clean records -> their tokens: by which encoder, and where."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.chat.tokenizer import load_tokenizer
from pipeline.shards import Executor, Kept, Local, run_shards
from pipeline.tokenize.encode import EncodeJob, encode_shard
from pipeline.tokenize.fast import why_not_fast

ENCODED_MEANWHILE = 64 * 10**6
"""Bytes of shards that gigatoken encodes while processes start: up to so many it does not wait for them."""


def encode_shards(
    sources: Sequence[Path], clean: Path, encoded: Path, tokenizer: Path, *, fast: bool, executor: Executor, kept: Kept
) -> None:
    """Encode `sources`, each into the directory of its place in `clean` below `encoded` (`pipeline.tokenize.encode`).

    Args:
        tokenizer: its directory.
        fast: by gigatoken, if it makes the same ids; one line says what is used, and why.
        executor: where to run. The bytes depend neither on it nor on `fast`.
    """

    def run(fast: bool, executor: Executor) -> list[str | None]:
        jobs = [EncodeJob(source, encoded / source.relative_to(clean), tokenizer, fast) for source in sources]
        return run_shards(encode_shard, jobs, title="tokenize", executor=executor, kept=kept)

    if fast:
        reason = why_not_fast(load_tokenizer(tokenizer))
        if reason is None:
            print("encoding by gigatoken", flush=True)
            few = sum(source.stat().st_size for source in sources) <= ENCODED_MEANWHILE
            reason = next(filter(None, run(True, Local(1) if few else executor)), None)
        if reason is None:
            return
        print(
            f"warning: {reason}; the text is encoded by `tokenizers`, which takes longer", file=sys.stderr, flush=True
        )
    run(False, executor)
