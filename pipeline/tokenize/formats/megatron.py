"""`tokens.bin` and `tokens.idx`: Megatron-LM's indexed dataset, a document of one sequence for each record.

tokens.bin is the tokens of all sequences, one after another. tokens.idx, little-endian:

    b"MMIDIDX\\0\\0" | u64 version, 1 | u8 code of the tokens' type | u64 S sequences | u64 D, documents + 1
    i32 length of each sequence [S] | i64 first byte of each sequence in the .bin [S]
    i64 first sequence of each document, and S [D] | perhaps i8 mode of each sequence [S]

There is no loss mask: whatever reads it learns every token.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import mapped
from pipeline.rows import Sequences

MAGIC, VERSION = b"MMIDIDX\0\0", 1
HEADER = struct.Struct("<9sQBQQ")
INT, LONG = np.dtype("<i4"), np.dtype("<i8")

CODES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
"""The types that tokens may have; 6 and 7 are floating-point."""
UINT16, INT32 = 8, 4

UINT16_VOCABULARY = 65_500
"""From this size on, Megatron-LM takes int32."""


@contextmanager
def write_megatron(directory: Path, vocab_size: int) -> Iterator[Callable[[Sequences, np.ndarray], None]]:
    """The format "megatron"; `directory / "tokens"` is the prefix that Megatron-LM's `--data-path` takes."""
    code = UINT16 if vocab_size < UINT16_VOCABULARY else INT32
    dtype = np.dtype(CODES[code]).newbyteorder("<")
    sequences = tokens = 0
    with (directory / "tokens.bin").open("wb") as file, (directory / "tokens.idx").open("wb+") as index:
        index.seek(HEADER.size)

        def add(added: Sequences, text_bytes: np.ndarray) -> None:
            nonlocal sequences, tokens
            added.ids.astype(dtype).tofile(file)
            added.lengths.astype(INT).tofile(index)
            sequences, tokens = sequences + len(added.lengths), tokens + len(added.ids)

        yield add
        index.seek(0)
        index.write(HEADER.pack(MAGIC, VERSION, code, sequences, sequences + 1))
        index.flush()
        lengths, begin = _map(Path(index.name), INT, sequences, HEADER.size), 0
        index.seek(0, os.SEEK_END)
        for block in mapped.blocks(sequences):
            ends = begin + np.cumsum(lengths[block], dtype=LONG) * dtype.itemsize
            (ends - lengths[block] * dtype.itemsize).tofile(index)
            begin = int(ends[-1])
        for block in mapped.blocks(sequences + 1):
            np.arange(block.start, block.stop, dtype=LONG).tofile(index)
    assert begin == tokens * dtype.itemsize, "the index reaches to the end of the tokens"


@dataclass(frozen=True)
class MegatronSequences:
    """What `open_megatron` returns: memory maps."""

    tokens: np.ndarray
    """(tokens,) of the type that the index names."""
    lengths: np.ndarray
    """(sequences,) int32"""
    pointers: np.ndarray
    """(sequences,) int64: the first byte of each."""
    documents: np.ndarray
    """(documents + 1,) int64: the first sequence of each, and the number of sequences."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> np.ndarray:
        """The tokens of a sequence."""
        first = int(self.pointers[index]) // self.tokens.itemsize
        return self.tokens[first : first + int(self.lengths[index])]


def open_megatron(prefix: Path) -> MegatronSequences:
    """Open `prefix`.bin and `prefix`.idx.

    Raises:
        ValueError: a file is missing, cut short, or not what the format says.
    """
    index, data = (prefix.with_name(prefix.name + end) for end in (".idx", ".bin"))
    for path in (index, data):
        if not path.is_file():
            raise ValueError(f"{path}: no such file; an indexed dataset is a .bin and a .idx of one name")
    code, sequences, documents = _read_header(index)
    lengths = _map(index, INT, sequences, HEADER.size)
    pointers = _map(index, LONG, sequences, HEADER.size + 4 * sequences)
    starts = _map(index, LONG, documents, HEADER.size + 12 * sequences)
    if len(starts) == 0 or starts[0] != 0 or starts[-1] != sequences or np.any(np.diff(starts) < 0):
        raise ValueError(
            f"{index}: its documents do not begin with sequence 0 and end with {sequences}; write it again"
        )
    dtype = np.dtype(CODES[code]).newbyteorder("<")
    if np.any(lengths < 0) or np.any(pointers < 0) or np.any(pointers % dtype.itemsize):
        raise ValueError(f"{index}: a sequence of negative length or between two tokens; it is damaged: write it again")
    end = int((pointers + lengths.astype(np.int64) * dtype.itemsize).max(initial=0))
    if data.stat().st_size != end:
        raise ValueError(
            f"{data}: {data.stat().st_size} bytes, but the sequences in {index.name} end at byte {end}; "
            "it is cut short or another's: write both again"
        )
    return MegatronSequences(_map(data, dtype, end // dtype.itemsize, 0), lengths, pointers, starts)


def _read_header(index: Path) -> tuple[int, int, int]:
    """The code of the tokens' type, S and D."""
    size = index.stat().st_size
    with index.open("rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size or not head.startswith(MAGIC):
        raise ValueError(
            f"{index}: not an index of Megatron-LM, which begins with {MAGIC!r} and has {HEADER.size} bytes at least"
        )
    _, version, code, sequences, documents = HEADER.unpack(head)
    if version != VERSION:
        raise ValueError(f"{index}: version {version} of the format; this reads version {VERSION}")
    if code not in CODES:
        raise ValueError(
            f"{index}: tokens of type code {code}; known codes of integers are {', '.join(map(str, CODES))}"
        )
    least = HEADER.size + 12 * sequences + 8 * documents
    if size not in (least, least + sequences):
        raise ValueError(
            f"{index}: {size} bytes, but {sequences} sequences and {documents - 1} documents take {least} "
            f"(or {least + sequences} with modes); it is cut short or damaged: write it again"
        )
    return code, sequences, documents


def _map(path: Path, dtype: np.dtype, count: int, offset: int) -> np.ndarray:
    """A memory map, or an array where there is nothing to map."""
    if not count:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r", offset=offset, shape=(count,)))
