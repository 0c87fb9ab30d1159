"""All shards of clean records -> their tokens: by which encoder, and where."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.hashing import content_sha256
from pipeline.shards import Executor, Kept, Threads, run_shards
from pipeline.tokenize.encode import EncodeJob, Given, encode_shard, load_encoder
from pipeline.tokenize.fast import awkward_text_that_differs

ENCODED_MEANWHILE = 64 * 10**6
"""Bytes of shards that gigatoken encodes while processes start: up to so many, threads do it in this one."""


def get_ready(sources: Sequence[Path], executor: Executor) -> None:
    """Have the executor start what encodes `sources` while the caller does something else."""
    if not _are_few(sources):
        executor.start(len({source.name for source in sources}), encode_shard.__module__)


def packer(sources: Sequence[Path], executor: Executor) -> Executor:
    """Where the rows are written: by who has encoded `sources`, if that is this machine."""
    return executor if executor.here and not _are_few(sources) else Threads(executor.here)


def encoded_at(encoded: Path, source: Path) -> Path:
    """Where below `encoded` the arrays of one file of clean records are: by its shard, then by its split."""
    return encoded / source.name / source.parent.name


def encode_shards(
    sources: Sequence[Path], encoded: Path, tokenizer: Path, *, fast: bool, executor: Executor, kept: Kept
) -> None:
    """Encode `sources`, each to where `encoded_at` says, as `pipeline.tokenize.encode` has it.

    Args:
        sources: files of clean records, `<split>/<shard>`.
        tokenizer: its directory.
        fast: by gigatoken, if it makes the same ids; one line says what is used, and why.
        executor: where to run. The bytes depend neither on it nor on `fast`.
    """

    shards: dict[str, list[tuple[str, Path]]] = {}
    for source in sources:
        shards.setdefault(source.name, []).append((source.parent.name, source))

    def run(fast: bool, executor: Executor) -> list[str | None]:
        given = Given(tokenizer, content_sha256(tokenizer))
        jobs = [EncodeJob(tuple(files), encoded / name, given, fast) for name, files in shards.items()]
        return run_shards(encode_shard, jobs, title="tokenize", executor=executor, kept=kept)

    if fast:
        try:
            encoder = load_encoder(tokenizer, fast=True)
        except ValueError as error:
            print(f"encoding by `tokenizers`: {error}", flush=True)
        else:
            print("encoding by gigatoken", flush=True)
            other = awkward_text_that_differs(encoder)
            if other is None:
                chosen = Threads(executor.here) if _are_few(sources) else executor
                other = next((text for text in run(True, chosen) if text is not None), None)
            if other is None:
                return
            print(
                f"warning: gigatoken makes other ids of {other[:60]!r}: all is encoded by `tokenizers`, "
                "which takes longer",
                file=sys.stderr,
                flush=True,
            )
    run(False, executor)


def _are_few(sources: Sequence[Path]) -> bool:
    return sum(source.stat().st_size for source in sources) <= ENCODED_MEANWHILE
