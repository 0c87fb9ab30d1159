"""One shard of clean records -> its tokens: the part of the work that is spread over processes.

A shard's tokens are five arrays in a directory of its own, `ids` and `mask` of all its tokens one record after another,
`lengths`, `first_response` and `text_bytes` of its records. They live until the stage has finished.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.chat.template import template_for
from pipeline.chat.tokenizer import Tokenizer, load_tokenizer
from pipeline.rows import CONTEXT, NEVER, RESPONSE, smallest_uint

RECORDS_AT_A_TIME = 256


@dataclass(frozen=True)
class EncodeJob:
    """One shard: the Parquet file `source` becomes arrays in the directory `folder`."""

    source: Path
    folder: Path
    tokenizer: Path

    @property
    def name(self) -> str:
        return f"{self.source.parent.name}/{self.source.name}"


def encode_shard(job: EncodeJob) -> None:
    """Tokenize one shard; see the module for what it writes."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes share out the cores, one each
    table = pl.read_parquet(job.source)
    tokenizer = load_tokenizer(job.tokenizer)
    if "text" in table.columns:
        sequences = list(_documents(table["text"], tokenizer))
        text_bytes = pl.col("text").str.len_bytes()
    else:
        sequences = list(_conversations(table["messages"], tokenizer))
        content = pl.element().struct.field("content")
        text_bytes = pl.col("messages").list.eval(content.str.len_bytes()).list.sum()
    ids = np.concatenate([ids for ids, _ in sequences])
    np.save(job.folder / "ids.npy", ids.astype(smallest_uint(tokenizer.vocab_size)))
    np.save(job.folder / "mask.npy", np.concatenate([mask for _, mask in sequences]))
    np.save(job.folder / "lengths.npy", np.array([len(ids) for ids, _ in sequences]))
    np.save(job.folder / "first_response.npy", np.array([np.argmax(mask == RESPONSE) for _, mask in sequences]))
    np.save(job.folder / "text_bytes.npy", table.select(text_bytes.cast(pl.Int64)).to_series().to_numpy())


def _documents(texts: pl.Series, tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for part in texts.to_frame().iter_slices(RECORDS_AT_A_TIME):
        for words in tokenizer.encode(part.to_series().to_list()):
            ids = np.array([tokenizer.bos_id, *words, tokenizer.eos_id])
            mask = np.full(len(ids), RESPONSE, dtype=np.uint8)
            mask[0] = NEVER
            yield ids, mask


def _conversations(messages: pl.Series, tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    template = template_for(tokenizer)
    for part in messages.to_frame().iter_slices(RECORDS_AT_A_TIME):
        for ids, answer in template.encode_batch(part.to_series().to_list()):
            mask = np.where(answer, RESPONSE, CONTEXT).astype(np.uint8)
            mask[0] = NEVER
            yield ids, mask


class Encoded:
    """The records of encoded shards, numbered through in the order of the shards; the tokens are memory maps."""

    def __init__(self, shards: Sequence[Path], scratch: Path) -> None:
        """`scratch`: a new directory for the tokens of all shards in one file; a map of each would be too many."""
        scratch.mkdir(parents=True)
        self._ids = _join([shard / "ids.npy" for shard in shards], scratch / "ids")
        self._mask = _join([shard / "mask.npy" for shard in shards], scratch / "mask")
        self.lengths = np.concatenate([np.load(shard / "lengths.npy") for shard in shards])
        """(records,) int64: tokens of each record."""
        self.first_response = np.concatenate([np.load(shard / "first_response.npy") for shard in shards])
        """(records,) int64: where in each record the first token to learn stands."""
        self.text_bytes = np.concatenate([np.load(shard / "text_bytes.npy") for shard in shards])
        """(records,) int64: UTF-8 bytes of each record's text: of the document, or of all words of the conversation."""
        self._starts = np.cumsum(self.lengths) - self.lengths

    def piece(self, record: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens `start` to `stop` of `record` as a sequence of their own: ids, and mask with the first token NEVER."""
        first = self._starts[record]
        mask = np.array(self._mask[first + start : first + stop])
        mask[0] = NEVER
        return self._ids[first + start : first + stop], mask


def _join(parts: Sequence[Path], target: Path) -> np.ndarray:
    """The arrays in the files `parts`, one after another, as a memory map of the file `target`."""
    with target.open("wb") as file:
        for part in parts:
            array = np.load(part)
            array.tofile(file)
    return np.memmap(target, dtype=array.dtype, mode="r")
