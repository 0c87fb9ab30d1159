"""The tokenize stage: choose or train the tokenizer, encode every shard, pack, publish."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.chat.template import ChatTemplate
from pipeline.chat.tokenizer import TOKENIZER_FILE, Tokenizer, load_tokenizer
from pipeline.params import TokenizeParams
from pipeline.shards import publish_directory, read_manifest, run_shards, write_manifest
from pipeline.shards.tables import DOCUMENTS, KINDS, SPLITS
from pipeline.tokenize.bpe import sample_texts, train_bpe
from pipeline.tokenize.choice import copy_tokenizer, given_tokenizer
from pipeline.tokenize.encode import Encoded, EncodeJob, encode_shard
from pipeline.tokenize.pack import pack

Shards = dict[tuple[str, str], list[str]]
"""By (kind, split): its shards in order, as paths in the directory of clean records."""


def tokenize(clean: Path, target: Path, params: TokenizeParams, *, checkpoint: str, workers: int) -> dict[str, float]:
    """Turn the clean records into packed rows and publish them as `target`, whole or not at all (data/README.md).

    Args:
        clean: what preprocess wrote.
        checkpoint: `model.checkpoint`, whose tokenizer is taken where the parameters name none.
        workers: processes; 0 for one per core. The bytes do not depend on it.

    Returns:
        The figures of the manifest, flat: "documents/train/rows" and so on.

    Raises:
        ValueError: no training records, an unusable tokenizer, or rows too short for any training record.
    """
    shards = clean_shards(clean)
    given = given_tokenizer(params.tokenizer, checkpoint)
    with publish_directory(target) as building:
        tokenizer = _provide_tokenizer(given, building / "tokenizer", clean, shards, params.vocab_size)
        encoded = building / "encoded"
        _encode(clean, encoded, shards, building / "tokenizer", workers)
        figures = _pack(encoded, building, shards, tokenizer, params)
        shutil.rmtree(encoded)
        facts = {"tokenizer": _describe(tokenizer), **figures}
        write_manifest(building, _records(building, figures), facts)
    return {
        f"{kind}/{split}/{name}": float(value)
        for kind, splits in figures.items()
        for split, found in splits.items()
        for name, value in found.items()
        if isinstance(value, int | float)
    }


def clean_shards(clean: Path) -> Shards:
    """The shards of `clean` that hold records.

    Raises:
        ValueError: preprocess has not finished, or no record is left to train on.
    """
    names = [name for name, file in sorted(read_manifest(clean)["files"].items()) if file["records"]]
    groups = {
        (kind, split): [name for name in names if name.startswith(f"{split}/{kind}-")]
        for kind in KINDS
        for split in SPLITS
    }
    shards = {group: found for group, found in groups.items() if found}
    if not any(split == "train" for _, split in shards):
        raise ValueError(
            f"{clean / 'train'}: there is no training record; {clean / 'dropped.parquet'} says what was dropped "
            "and why, preprocess.validation_fraction and preprocess.test_fraction say how much is held out"
        )
    return shards


def _provide_tokenizer(given: Path | None, directory: Path, clean: Path, shards: Shards, vocab_size: int) -> Tokenizer:
    directory.mkdir()
    if given:
        copy_tokenizer(given, directory)
    else:
        training = [clean / name for kind in KINDS for name in shards.get((kind, "train"), [])]
        train_bpe(sample_texts(training), vocab_size).save(str(directory / TOKENIZER_FILE))
    return load_tokenizer(directory)


def _encode(clean: Path, encoded: Path, shards: Shards, tokenizer: Path, workers: int) -> None:
    names = [name for group in shards.values() for name in group]
    jobs = [EncodeJob(clean / name, encoded / name, tokenizer) for name in names]
    run_shards(encode_shard, jobs, title="tokenize", workers=workers)


def _pack(
    encoded: Path, target: Path, shards: Shards, tokenizer: Tokenizer, params: TokenizeParams
) -> dict[str, dict[str, Any]]:
    """The rows of every kind and split below `target`, and their figures by kind and split."""
    figures: dict[str, dict[str, Any]] = {}
    for (kind, split), names in shards.items():
        figures.setdefault(kind, {})[split] = pack(
            Encoded([encoded / name for name in names], scratch=encoded / kind / split),
            target / kind / split,
            tokenizer,
            seqlen=params.seqlen,
            long=params.long_documents if kind == DOCUMENTS else params.long_conversations,
            rng=np.random.default_rng(params.seed) if split == "train" else None,
        )
    for kind, splits in figures.items():
        for split, found in splits.items():
            if not found["rows"]:
                remedy = " or set tokenize.long_documents to split" if kind == DOCUMENTS else ""
                raise ValueError(
                    f"tokenize.seqlen is {params.seqlen}: none of the {found['records_in']} {kind} for {split} "
                    f"fits into a row; raise it{remedy}"
                )
    return figures


def _describe(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "pad_id": tokenizer.pad_id,
        "end_id": ChatTemplate.for_tokenizer(tokenizer).end_id,
    }


def _records(target: Path, figures: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The records of each file: the rows of an array, 1 for a file of the tokenizer."""
    files = (path.relative_to(target) for path in target.rglob("*") if path.is_file())
    return {
        path.as_posix(): 1 if path.parts[0] == "tokenizer" else figures[path.parts[0]][path.parts[1]]["rows"]
        for path in files
    }
