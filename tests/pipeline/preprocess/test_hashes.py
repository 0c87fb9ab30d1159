"""Names of texts: those of BLAKE3, and apart for each kind."""

import hashlib

import numpy as np
import polars as pl

from pipeline.preprocess.hashes import text_names

OF_NOTHING = bytes.fromhex("af1349b9f5f9a1a6a0404dea36dcc949")
"""The first half of BLAKE3 of no bytes, from the paper's test vectors."""


def test_names_are_those_of_blake3_with_the_kind() -> None:
    kind = hashlib.blake2b(b"documents", digest_size=16).digest()
    (high,), (low,) = text_names("documents", pl.Series([""]))
    found = high.tobytes() + low.tobytes()
    assert bytes(a ^ b for a, b in zip(found, kind, strict=True)) == OF_NOTHING


def test_only_equal_texts_of_a_kind_have_equal_names() -> None:
    texts = pl.Series(["a", "b", "a", "", "\0", "é" * 5000])
    names = [
        (kind, *name) for kind in ("documents", "conversations") for name in zip(*text_names(kind, texts), strict=True)
    ]
    assert len({name[1:] for name in names}) == 2 * 5
    assert names[0] == names[2]


def test_no_texts_have_no_names() -> None:
    assert [half.tolist() for half in text_names("documents", pl.Series([], dtype=pl.String))] == [[], []]
    assert text_names("documents", pl.Series(["a"]))[0].dtype == np.uint64
