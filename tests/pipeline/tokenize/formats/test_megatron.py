"""Megatron-LM's indexed dataset against a writer and a reader of single bytes, made from the layout alone."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from pipeline.rows import Sequences
from pipeline.tokenize.formats.megatron import open_megatron, write_megatron

TYPES = {1: "B", 2: "b", 3: "h", 4: "i", 5: "q", 8: "H"}
"""Of struct, by code."""


def index_bytes(code: int, lengths: list[int], documents: list[int], modes: bytes = b"") -> bytes:
    """An index, field by field."""
    width = struct.calcsize(TYPES[code])
    pointers = [width * sum(lengths[:number]) for number in range(len(lengths))]
    fields = [b"MMIDIDX\x00\x00", struct.pack("<Q", 1), struct.pack("<B", code)]
    fields += [struct.pack("<Q", len(lengths)), struct.pack("<Q", len(documents))]
    fields += [struct.pack("<i", length) for length in lengths]
    fields += [struct.pack("<q", pointer) for pointer in pointers]
    fields += [struct.pack("<q", document) for document in documents]
    return b"".join([*fields, modes])


def token_bytes(code: int, sequences: list[list[int]]) -> bytes:
    return b"".join(struct.pack(f"<{TYPES[code]}", token) for sequence in sequences for token in sequence)


def random_sequences(vocab_size: int, seed: int = 0, count: int = 20) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[vocab_size - 1, *rng.integers(0, vocab_size, rng.integers(0, 9)).tolist()] for _ in range(count)]


def write(directory: Path, sequences: list[list[int]], vocab_size: int, at_a_time: int = 7) -> Path:
    directory.mkdir(exist_ok=True)
    with write_megatron(directory, vocab_size) as add:
        for first in range(0, len(sequences), at_a_time):
            part = sequences[first : first + at_a_time]
            ids = np.concatenate([np.array(ids, dtype=np.uint32) for ids in part])
            add(Sequences(ids, np.zeros(len(ids)), np.array([len(ids) for ids in part])), np.zeros(len(part)))
    return directory / "tokens"


@pytest.mark.parametrize(("vocab_size", "code"), [(300, 8), (65_499, 8), (65_500, 4), (200_000, 4)])
def test_what_is_written_is_byte_for_byte_the_layout(tmp_path: Path, vocab_size: int, code: int) -> None:
    sequences = random_sequences(vocab_size)
    prefix = write(tmp_path, sequences, vocab_size)
    lengths, documents = [len(ids) for ids in sequences], list(range(len(sequences) + 1))
    assert prefix.with_suffix(".idx").read_bytes() == index_bytes(code, lengths, documents)
    assert prefix.with_suffix(".idx").stat().st_size == 34 + 12 * len(sequences) + 8 * len(documents)
    assert prefix.with_suffix(".bin").read_bytes() == token_bytes(code, sequences)
    read = open_megatron(prefix)
    assert [read[number].tolist() for number in range(len(read))] == sequences


@pytest.mark.parametrize("modes", [False, True])
@pytest.mark.parametrize("code", TYPES)
def test_another_writers_files_are_read(tmp_path: Path, code: int, modes: bool) -> None:
    sequences, documents = random_sequences(100), [0, 3, 3, 20]
    lengths = [len(ids) for ids in sequences]
    (tmp_path / "x.y.idx").write_bytes(index_bytes(code, lengths, documents, bytes(20) if modes else b""))
    (tmp_path / "x.y.bin").write_bytes(token_bytes(code, sequences))
    read = open_megatron(tmp_path / "x.y")
    assert [read[number].tolist() for number in range(len(read))] == sequences
    assert read.documents.tolist() == documents
    assert read.tokens.dtype.itemsize == struct.calcsize(TYPES[code])


def test_nothing_is_something_too(tmp_path: Path) -> None:
    with write_megatron(tmp_path, 300):
        pass
    assert len(open_megatron(tmp_path / "tokens")) == 0
    assert (tmp_path / "tokens.idx").read_bytes() == index_bytes(8, [], [0])


def test_files_cut_anywhere_are_refused(tmp_path: Path) -> None:
    prefix = write(tmp_path, random_sequences(300, count=5), 300)
    for end in (".idx", ".bin"):
        path = prefix.with_suffix(end)
        whole = path.read_bytes()
        for size in range(len(whole)):
            path.write_bytes(whole[:size])
            with pytest.raises(ValueError, match=rf"tokens\{end}: "):
                open_megatron(prefix)
        path.write_bytes(whole + b"\0")
        with pytest.raises(ValueError, match=rf"tokens\{end}: "):
            open_megatron(prefix)
        path.write_bytes(whole)
    assert len(open_megatron(prefix)) == 5


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, b"X", "not an index of Megatron-LM, which begins with b'MMIDIDX"),
        (9, b"\2", "version 2 of the format; this reads version 1"),
        (17, b"\6", "tokens of type code 6; known codes of integers are 1, 2, 3, 4, 5, 8"),
        (18, b"\xff", "it is cut short or damaged"),
        (37, b"\xff", "a sequence of negative length"),
        (34 + 4 * 5 + 7, b"\xff", "a sequence of negative length or between two tokens"),
        (34 + 4 * 5, b"\1", "between two tokens"),
        (34 + 12 * 5, b"\1", "do not begin with sequence 0 and end with 5"),
        (34 + 12 * 5 + 8 * 5, b"\4", "do not begin with sequence 0 and end with 5"),
        (34 + 12 * 5 + 8, b"\4", "do not begin with sequence 0 and end with 5"),
        (34 + 4 * 4, b"\x40", "the sequences in tokens.idx end at byte"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, at: int, value: bytes, words: str) -> None:
    prefix = write(tmp_path, random_sequences(300, count=5), 300)
    content = bytearray(prefix.with_suffix(".idx").read_bytes())
    content[at : at + 1] = value
    prefix.with_suffix(".idx").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        open_megatron(prefix)


def test_a_missing_half(tmp_path: Path) -> None:
    prefix = write(tmp_path, random_sequences(300), 300)
    prefix.with_suffix(".bin").unlink()
    with pytest.raises(ValueError, match=r"tokens\.bin: no such file; an indexed dataset is a \.bin and a \.idx"):
        open_megatron(prefix)
