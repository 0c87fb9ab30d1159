"""The tokenize stage: choose or train the tokenizer, encode every shard, pack, publish."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.chat.template import ChatTemplate, template_for
from pipeline.chat.tokenizer import CHAT_TEMPLATE_FILE, COMPANIONS, TOKENIZER_FILE, Tokenizer, read_template
from pipeline.params import EMBEDDED, TokenizeParams
from pipeline.shards import Executor, Kept, Local, run_shards, verify_manifest, write_manifest
from pipeline.shards.tables import CONVERSATIONS, DOCUMENTS, KINDS, SPLITS, require_columns
from pipeline.tokenize.bpe import BYTES_PER_TOKEN, sample_texts, train_bpe
from pipeline.tokenize.choice import given_tokenizer
from pipeline.tokenize.converted import ENCODING_FILE
from pipeline.tokenize.encode import load_encoder
from pipeline.tokenize.encoded import join_encoded
from pipeline.tokenize.encoding import encode_shards, encoded_at, get_ready, packer
from pipeline.tokenize.foreign import PROOF_BYTES, take_tokenizer
from pipeline.tokenize.formats import ROW_FILES
from pipeline.tokenize.pack import pack
from pipeline.tokenize.statistics import SOURCES, by_source
from pipeline.work import WorkFolder, link_tree, publish_directory, remove

Shards = dict[tuple[str, str], list[str]]
"""By (kind, split): its shards in order, as paths in the directory of clean records."""


@dataclass(frozen=True)
class Provision:
    """The tokenizer `given`, or one that is trained on the shards of `training`."""

    given: Path | None
    files: dict[str, Path]
    """The given file and what belongs to it, by their names, which say how it is read."""
    training: list[Path]
    vocab_size: int
    chat_template: Path | None
    folder: Path
    name: str = "tokenizer"


def tokenize(
    clean: Path, work: WorkFolder, params: TokenizeParams, *, checkpoint: str, executor: Executor
) -> dict[str, float]:
    """Turn the clean records into packed rows; `work.out` is described in data/README.md.

    After a stop, the tokenizer and the shards that are done are taken as they are; packing starts anew.

    Args:
        clean: what preprocess wrote.
        checkpoint: `model.checkpoint`, whose tokenizer is taken where the parameters name none.
        executor: where to run. The bytes do not depend on it.

    Returns:
        The figures of the manifest, flat: "documents/train/rows" and so on.

    Raises:
        ValueError: no training records, an unusable tokenizer, or rows too short for any training record.
    """
    shards = clean_shards(clean)
    given = given_tokenizer(params.tokenizer, checkpoint)
    kept = Kept.of(work)
    training = [clean / name for kind in KINDS for name in shards.get((kind, "train"), [])]
    chat_template = None if params.chat_template == EMBEDDED else Path(params.chat_template)
    sources = [clean / name for group in shards.values() for name in group]
    get_ready(sources, executor)
    provision = Provision(given, _files(given), training, params.vocab_size, chat_template, work.scratch / "tokenizer")
    run_shards(provide, [provision], title="tokenizer", executor=Local(), kept=kept)
    tokenizer = load_encoder(provision.folder, fast=False)
    template = template_for(tokenizer)
    if any(kind == CONVERSATIONS for kind, _ in shards) and template.without_mask:
        raise ValueError(template.without_mask)
    encoded = work.scratch / "encoded"
    encode_shards(sources, encoded, provision.folder, fast=params.fast, executor=executor, kept=kept)
    with publish_directory(work.out) as building:
        link_tree(provision.folder, building / "tokenizer")
        plans = work.scratch / "plans"
        remove(plans)
        packed = _pack(encoded, plans, clean, building, shards, tokenizer, params, packer(sources, executor))
        figures, table = packed
        facts = {"tokenizer": _describe(template), **figures}
        records = _records(building, figures) | {SOURCES: table.height}
        (building / SOURCES).parent.mkdir()
        table.write_csv(building / SOURCES)
        write_manifest(building, records, facts)
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
        ValueError: preprocess has not finished, a file is not as it left it, or no record is left to train on.
    """
    names = [name for name, file in verify_manifest(clean)["files"].items() if file["records"]]
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
    require_columns(clean, {name: kind for (kind, _), found in shards.items() for name in found}, split=False)
    return shards


def _files(given: Path | None) -> dict[str, Path]:
    if given is None or given.is_dir():
        return {}
    names = (given.name, *COMPANIONS, ENCODING_FILE)
    return {name: file for name in names if (file := given.with_name(name)).is_file()}


def provide(job: Provision) -> None:
    """Copy, convert or train the tokenizer, and put the chat template that is given beside it."""
    if job.given:
        take_tokenizer(job.given, job.folder, sample_texts(job.training, PROOF_BYTES))
    else:
        size = sum(shard.stat().st_size for shard in job.training) / 1e6
        print(f"training a byte-level BPE of {job.vocab_size:,} tokens on {size:,.1f} MB of shards", flush=True)
        texts = sample_texts(job.training, job.vocab_size * BYTES_PER_TOKEN)
        train_bpe(texts, job.vocab_size).save(str(job.folder / TOKENIZER_FILE))
    if job.chat_template:
        read_template(job.chat_template)  # what is wrong with it is said of the file that was given
        shutil.copyfile(job.chat_template, job.folder / CHAT_TEMPLATE_FILE)


def _pack(
    encoded: Path,
    plans: Path,
    clean: Path,
    target: Path,
    shards: Shards,
    tokenizer: Tokenizer,
    params: TokenizeParams,
    executor: Executor,
) -> tuple[dict[str, dict[str, Any]], pl.DataFrame]:
    """The rows of every kind and split below `target`; their figures by kind and split, and what each source has."""
    figures: dict[str, dict[str, Any]] = {}
    sources = []
    for (kind, split), names in shards.items():
        listed = [encoded_at(encoded, clean / name) for name in names]
        records = join_encoded(listed, tokenizer.vocab_size, plans / kind / split)
        found, tokens = pack(
            records,
            target / kind / split,
            tokenizer,
            seqlen=params.seqlen,
            long=params.long_documents if kind == DOCUMENTS else params.long_conversations,
            rng=np.random.default_rng(params.seed) if split == "train" else None,
            formats=params.formats,
            executor=executor,
        )
        figures.setdefault(kind, {})[split] = found
        table = by_source([clean / name for name in names], records, tokens)
        sources.append(table.select(pl.lit(kind).alias("kind"), pl.lit(split).alias("split"), pl.all()))
    for kind, splits in figures.items():
        for split, found in splits.items():
            if not found["rows"]:
                remedy = " or set tokenize.long_documents to split" if kind == DOCUMENTS else ""
                raise ValueError(
                    f"tokenize.seqlen is {params.seqlen}: none of the {found['records_in']} {kind} for {split} "
                    f"fits into a row; raise it{remedy}"
                )
    return figures, pl.concat(sources)


def _describe(template: ChatTemplate) -> dict[str, Any]:
    tokenizer = template.tokenizer
    return {
        "sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "pad_id": tokenizer.pad_id,
        "end_id": template.end_id,
    }


def _records(target: Path, figures: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The records of each file: rows, or the records kept; 1 for a file of the tokenizer."""

    def count(path: Path) -> int:
        if path.parts[0] == "tokenizer":
            return 1
        found: dict[str, int] = figures[path.parts[0]][path.parts[1]]
        return found["rows" if path.name in ROW_FILES else "records_out"]

    files = (path.relative_to(target) for path in target.rglob("*") if path.is_file())
    return {path.as_posix(): count(path) for path in files}
