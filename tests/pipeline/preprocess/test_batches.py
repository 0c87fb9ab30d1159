"""Batches of texts: in order, complete, and no larger than they may be."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.preprocess.batches import batches


@given(st.lists(st.text("aé", max_size=9), max_size=20), st.integers(1, 12))
def test_batches_are_the_texts_in_as_few_parts_as_go_in_order(texts: list[str], size: int) -> None:
    parts = [part.to_list() for part in batches(pl.Series(texts, dtype=pl.String), size)]
    assert [text for part in parts for text in part] == texts
    sizes = [sum(map(len, part)) for part in parts]
    assert all(part for part in parts)
    assert all(characters <= size or len(part) == 1 for part, characters in zip(parts, sizes, strict=True))
    following = [len(part[0]) for part in parts[1:]]
    assert all(characters + after > size for characters, after in zip(sizes, following, strict=False))
