"""One shard of clean records -> its tokens: the part of the work that is spread over processes.

A shard's tokens are five arrays for each of its splits, `ids` and `mask` of all tokens one record after another,
`lengths`, `first_response` and `text_bytes` of the records. They live until the stage has finished.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.chat.schemas import Message
from pipeline.chat.template import ChatTemplate, template_for
from pipeline.chat.tokenizer import TOKENIZER_FILE, Tokenizer, load_tokenizer
from pipeline.rows import CONTEXT, NEVER, RESPONSE, smallest_uint
from pipeline.shards.tables import read_shard
from pipeline.tokenize.encoded import IDS, MASK
from pipeline.tokenize.fast import sampled_text_that_differs

RECORDS_AT_A_TIME = 256

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""ids and mask of some records, one after another, and how many tokens each record has."""


@dataclass(frozen=True)
class Given:
    """The tokenizer of all shards, which is hashed once for all their jobs."""

    directory: Path = field(metadata={"in_key": False})  # of pipeline.shards.keys: the hash stands for all in it
    sha256: str


@dataclass(frozen=True)
class EncodeJob:
    """One shard: each of its Parquet files becomes arrays in a directory of its split below `folder`."""

    sources: tuple[tuple[str, Path], ...]
    """(split, file): most shards have few held-out records, which would not be worth jobs of their own. The split names
    a directory of the result, so it is told beside the file, of which only the content counts in the job's key."""
    folder: Path
    tokenizer: Given
    fast: bool
    """By gigatoken."""

    @property
    def name(self) -> str:
        return self.sources[0][1].name


def encode_shard(job: EncodeJob) -> str | None:
    """Tokenize one shard; see the module for what it writes.

    Returns:
        After gigatoken, a text of which it makes other ids than `tokenizers`, if a sample has one.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes share out the cores, one each
    tokenizer = load_encoder(job.tokenizer.directory, fast=job.fast)
    different = None
    for split, source in job.sources:
        texts = _encode(source, job.folder / split, tokenizer)
        if job.fast and different is None:
            different = sampled_text_that_differs(tokenizer, texts)
    return different


def _encode(source: Path, folder: Path, tokenizer: Tokenizer) -> pl.Series:
    """Write the arrays of one file into the new directory `folder`; returns its texts."""
    folder.mkdir(parents=True)
    table = read_shard(source)
    dtype = smallest_uint(tokenizer.vocab_size)
    if "text" in table.columns:
        batches = [_documents(part["text"].to_list(), tokenizer, dtype) for part in _parts(table)]
        texts = table["text"]
        text_bytes = pl.col("text").str.len_bytes()
    else:
        template = template_for(tokenizer)
        batches = [_conversations(part, template, dtype) for part in _parts(table)]
        content = pl.element().struct.field("content")
        texts = table["messages"].explode().struct.field("content")
        text_bytes = pl.col("messages").list.eval(content.str.len_bytes()).list.sum()
    ids, mask, lengths = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    first_response = _first_responses(mask, lengths) if "messages" in table.columns else np.ones_like(lengths)
    ids.tofile(folder / IDS)
    mask.tofile(folder / MASK)
    np.save(folder / "lengths.npy", lengths)
    np.save(folder / "first_response.npy", first_response)
    np.save(folder / "text_bytes.npy", table.select(text_bytes.cast(pl.Int64)).to_series().to_numpy())
    return texts


def load_encoder(directory: Path, *, fast: bool) -> Tokenizer:
    """The tokenizer in `directory`, kept from shard to shard: loading takes longer than a shard by gigatoken.

    Raises:
        ValueError: `fast`, and gigatoken is not installed or does not take it.
    """
    return _load(directory, (directory / TOKENIZER_FILE).stat().st_mtime_ns, fast)


@lru_cache(maxsize=2)
def _load(directory: Path, changed: int, fast: bool) -> Tokenizer:
    """`changed` tells versions apart."""
    return _load(directory, changed, False).accelerated() if fast else load_tokenizer(directory)


def _parts(table: pl.DataFrame) -> Iterator[pl.DataFrame]:
    return table.iter_slices(RECORDS_AT_A_TIME)


def _documents(texts: list[str], tokenizer: Tokenizer, dtype: np.dtype) -> Batch:
    words, counts = tokenizer.encode_flat(texts)
    lengths = counts + 2
    stops = np.cumsum(lengths)
    inside = np.ones(int(lengths.sum()), dtype=bool)
    inside[stops - lengths] = inside[stops - 1] = False
    ids = np.empty(len(inside), dtype=dtype)
    ids[inside] = words
    ids[stops - lengths] = tokenizer.bos_id
    ids[stops - 1] = tokenizer.eos_id
    mask = np.full(len(ids), RESPONSE, dtype=np.uint8)
    mask[stops - lengths] = NEVER
    return ids, mask, lengths


def _conversations(table: pl.DataFrame, template: ChatTemplate, dtype: np.dtype) -> Batch:
    encoded = _by_template(table, template)
    lengths = np.array([len(ids) for ids, _ in encoded], dtype=np.int64)
    ids = np.concatenate([ids for ids, _ in encoded]).astype(dtype)
    mask = np.where(np.concatenate([answer for _, answer in encoded]), RESPONSE, CONTEXT).astype(np.uint8)
    mask[np.cumsum(lengths) - lengths] = NEVER
    return ids, mask, lengths


def _by_template(table: pl.DataFrame, template: ChatTemplate) -> list[tuple[np.ndarray, np.ndarray]]:
    """ids and mask of each conversation.

    Raises:
        ValueError: the template does not take one of them, or does not mark its answers; its id says file and line.
    """
    conversations: list[list[Message]] = table["messages"].to_list()
    try:
        return template.encode_batch(conversations)
    except ValueError:
        for record, messages in zip(table["id"].to_list(), conversations, strict=True):
            try:
                template.encode(messages)
            except ValueError as error:
                raise ValueError(f"{record}: {error}") from None
        raise


def _first_responses(mask: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(records,) int64: where in each record the first token to learn stands, or a place behind it if there is none."""
    starts = np.cumsum(lengths) - lengths
    learned = np.append(np.flatnonzero(mask == RESPONSE), len(mask))
    return learned[np.searchsorted(learned, starts)] - starts
