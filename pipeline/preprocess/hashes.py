"""Hashes that stay the same across versions and machines: what is kept on disk is built on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import polars_hash

from pipeline.arrays import U64
from pipeline.splitmix import finalize


def string_hashes(strings: pl.Series) -> U64:
    """XXH3 (64 bits) of the UTF-8 of each string; (n,) uint64."""
    return strings.to_frame("s").select(polars_hash.col("s").nchash.xxh3_64())["s"].to_numpy()


def text_names(kind: str, texts: pl.Series) -> tuple[U64, U64]:
    """BLAKE3 (128 bits, in halves) of each text, apart for each `kind`: in a third of the time of `key_names`."""
    digests = texts.to_frame("s").select(polars_hash.col("s").chash.blake3().str.head(32))["s"]
    (own,) = _halves(hashlib.blake2b(kind.encode(), digest_size=16).digest())
    halves = _halves(bytes.fromhex("".join(digests))) ^ own
    return halves[:, 0], halves[:, 1]


def key_names(kind: str, keys: Iterable[bytes]) -> tuple[U64, U64]:
    """BLAKE2b (128 bits, in halves) of each key, apart for each `kind` (at most 16 bytes of UTF-8)."""
    person = kind.encode()
    halves = _halves(b"".join(hashlib.blake2b(key, digest_size=16, person=person).digest() for key in keys))
    return halves[:, 0], halves[:, 1]


def _halves(digests: bytes) -> U64:
    """(n, 2) the halves of digests of 16 bytes."""
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)


def tuple_names(kind: str, tuples: np.ndarray[Any, np.dtype[np.uint32]]) -> tuple[U64, U64]:
    """128 bits (in halves) for each of `tuples`, (n, places, k) uint32, apart for each `kind` and each place.

    Returns:
        The halves, (n, places) each.
    """
    tuples = np.pad(tuples, ((0, 0), (0, 0), (0, tuples.shape[2] % 2)))
    members = np.moveaxis(np.ascontiguousarray(tuples).view(np.uint64), 2, 0)
    seed = int.from_bytes(hashlib.blake2b(kind.encode(), digest_size=8).digest(), "little")
    halves = []
    for half in range(2):
        places = np.arange(tuples.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(half)
        names = np.broadcast_to(mix(places + np.uint64(seed)), tuples.shape[:2])
        for member in members:
            names = mix(names ^ member)
        halves.append(names)
    return halves[0], halves[1]


def mix(values: U64) -> U64:
    """A bijection that makes every bit hang on all: SplitMix64's finalizer after its increment, which moves 0."""
    return finalize(values + np.uint64(0x9E3779B97F4A7C15))
