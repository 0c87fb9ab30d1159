"""The packed-row format: fixed-length rows of token sequences, written some at a time, read as memory maps.

A directory of rows holds three arrays of shape (rows, seqlen):

    input_ids.npy   uint16, or uint32 where the vocabulary needs it
    loss_mask.npy   uint8, one of NEVER, RESPONSE, CONTEXT
    seq_idx.npy     uint16, or uint32 where seqlen is above 65,536: the token's sequence within its row, from 0

A sequence is a piece of a document, or a conversation. Its first token has nothing before it to be predicted from
and is NEVER a target; so a row has exactly as many targets as marked tokens. Padding closes a row as a sequence of
its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

NEVER = 0
"""The first token of a sequence, and padding."""
RESPONSE = 1
"""A token to learn: of a document, or of an assistant's answer."""
CONTEXT = 2
"""A token of a conversation that is learned only where everything is."""

IGNORED = -100
"""The label of a token that is no target."""

Supervise = Literal["response", "all"]

INPUT_IDS, LOSS_MASK, SEQ_IDX = "input_ids.npy", "loss_mask.npy", "seq_idx.npy"


def smallest_uint(values: int) -> np.dtype:
    """uint16 or uint32: the smaller that holds 0 to `values` - 1."""
    return np.dtype(np.uint16 if values <= 2**16 else np.uint32)


class Sequences(NamedTuple):
    """Some sequences of tokens, one after another."""

    ids: np.ndarray
    """(tokens,) of any integer type."""
    mask: np.ndarray
    """(tokens,) NEVER, RESPONSE or CONTEXT; the first token of each sequence is NEVER."""
    lengths: np.ndarray
    """(sequences,) int64: tokens of each."""


class Batch(NamedTuple):
    """Some rows, as the model takes them; all (rows, seqlen)."""

    input_ids: np.ndarray
    """int64"""
    labels: np.ndarray
    """int64, unshifted: the id of a target, IGNORED elsewhere."""
    seq_idx: np.ndarray
    """int32"""


@dataclass(frozen=True)
class Rows:
    """What `open_rows` returns: memory maps, all (rows, seqlen), and which of the tokens are targets."""

    supervise: Supervise
    input_ids: np.ndarray
    loss_mask: np.ndarray
    seq_idx: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def seqlen(self) -> int:
        return self.input_ids.shape[1]

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The rows at `indices`, in that order."""
        input_ids = self.input_ids[indices].astype(np.int64)
        labels = np.where(self._is_target(self.loss_mask[indices]), input_ids, IGNORED)
        return Batch(input_ids, labels, self.seq_idx[indices].astype(np.int32))

    def _is_target(self, mask: np.ndarray) -> np.ndarray:
        return mask == RESPONSE if self.supervise == "response" else mask != NEVER


def open_rows(directory: Path, supervise: Supervise = "response") -> Rows:
    """Open the rows in `directory`; their targets are the RESPONSE tokens, or all that can be (CONTEXT too).

    Raises:
        ValueError: a file is missing, or is not what the format says.
    """
    arrays = [_open(directory / name) for name in (INPUT_IDS, LOSS_MASK, SEQ_IDX)]
    if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 2:
        shapes = ", ".join(f"{array.shape}" for array in arrays)
        raise ValueError(
            f"{directory}: expected three arrays of one shape (rows, seqlen), found {shapes}; run tokenize again"
        )
    return Rows(supervise, *arrays)


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise ValueError(f"{path}: no packed rows here; run the tokenize stage first") from None
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npy file ({error}); run tokenize again") from None


@dataclass(frozen=True)
class RowFiles:
    """The files in `directory`, written at their places, some rows at a time, by any processes of this machine."""

    directory: Path
    seqlen: int
    vocab_size: int
    pad_id: int

    def create(self, rows: int) -> None:
        """Make the directory and the files for so many rows; what is in them is zeros until it is written."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for name, dtype in self._dtypes.items():
            with (self.directory / name).open("wb") as file:
                header = {"descr": dtype.str, "fortran_order": False, "shape": (rows, self.seqlen)}
                np.lib.format.write_array_header_1_0(file, header)
                file.truncate(file.tell() + rows * self.seqlen * dtype.itemsize)

    def write(self, first: int, sequences: Sequences, counts: np.ndarray) -> None:
        """Write rows from number `first` on: each is the next `counts[r]`, of (rows,) int64, of `sequences`, padded."""
        row_of = np.repeat(np.arange(len(counts)), counts)
        used = np.bincount(row_of, sequences.lengths, len(counts)).astype(np.int64)
        assert used.max() <= self.seqlen, f"{used.max()} tokens for a row of {self.seqlen}"
        filled = None  # as rows of documents that are cut are, but for the last
        if used.min() < self.seqlen:
            filled = np.arange(self.seqlen) < used[:, None]
        index = (np.arange(len(row_of)) - (np.cumsum(counts) - counts)[row_of]).astype(self._dtypes[SEQ_IDX])
        self._write(INPUT_IDS, first, filled, sequences.ids, self.pad_id)
        self._write(LOSS_MASK, first, filled, sequences.mask, NEVER)
        self._write(SEQ_IDX, first, filled, np.repeat(index, sequences.lengths), counts[:, None])

    @property
    def _dtypes(self) -> dict[str, np.dtype]:
        return {
            INPUT_IDS: smallest_uint(self.vocab_size),
            LOSS_MASK: np.dtype(np.uint8),
            SEQ_IDX: smallest_uint(self.seqlen),
        }

    def _write(
        self, name: str, first: int, filled: np.ndarray | None, tokens: np.ndarray, padding: np.ndarray | int
    ) -> None:
        """`filled`: (rows, seqlen) bool, where tokens stand; None where all rows are full."""
        dtype = self._dtypes[name]
        rows = tokens.astype(dtype, copy=False)
        if filled is not None:
            rows = np.empty(filled.shape, dtype=dtype)
            rows[:] = padding
            rows[filled] = tokens
        with (self.directory / name).open("r+b", buffering=0) as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            file.seek(first * self.seqlen * dtype.itemsize, os.SEEK_CUR)
            rows.tofile(file)
