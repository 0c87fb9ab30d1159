"""MinHash against true similarities, and bands against a comparison of all pairs of signatures."""

import random

import networkx as nx
import numpy as np
import polars as pl
import pytest

from pipeline.preprocess.near import minhash
from pipeline.preprocess.near.minhash import MinHash, band_names, signatures
from pipeline.preprocess.ngrams import ngram_hashes


def random_texts(rng: random.Random, count: int) -> list[str]:
    """Texts of few words, many of them changed copies of earlier ones; some empty, some of one word."""
    texts: list[list[str]] = []
    for _ in range(count):
        if texts and rng.random() < 0.6:
            own = list(rng.choice(texts))
            for _ in range(rng.randrange(4)):
                if own:
                    own[rng.randrange(len(own))] = str(rng.randrange(99))
        else:
            own = [str(rng.randrange(99)) for _ in range(rng.choice([0, 1, 4, 30, 60]))]
        texts.append(own)
    return [" ".join(own) for own in texts]


def test_signatures_estimate_the_similarity_of_sets() -> None:
    rng = np.random.default_rng(0)
    size, pairs, count = 300, 400, 112
    for wanted in (0.3, 0.6, 0.9):
        common = round(size * 2 * wanted / (1 + wanted))
        sets = []
        for _ in range(pairs):
            shared = rng.integers(2**64, size=common, dtype=np.uint64)
            sets += [np.append(shared, rng.integers(2**64, size=size - common, dtype=np.uint64)) for _ in range(2)]
        values = signatures(np.concatenate(sets), np.arange(2 * pairs + 1) * size, count).reshape(pairs, 2, count)
        estimates = (values[:, 0] == values[:, 1]).mean(axis=1)
        similarity = common / (2 * size - common)
        spread = np.sqrt(similarity * (1 - similarity) / count)  # of independent permutations
        assert abs(estimates.mean() - similarity) < 4 * spread / np.sqrt(pairs)
        assert estimates.std() < 1.1 * spread


def test_signatures_hang_on_the_set_alone() -> None:
    hashes = np.arange(1, 50, dtype=np.uint64) ** 7
    other = np.concatenate([hashes[::-1], hashes[:7]])
    values = signatures(np.concatenate([hashes, other]), np.array([0, 49, 105]), 112)
    assert np.array_equal(values[0], values[1])


def test_signatures_are_those_of_the_version_that_kept_ones_were_made_with() -> None:
    hashes, offsets = ngram_hashes(pl.Series(["the state of one small matrix, carried along"]), 5, whole=True)
    assert signatures(hashes, offsets, 4).tolist() == [[2401215763, 376406037, 201370653, 530552830]]


@pytest.mark.parametrize("seed", range(6))
def test_bands_against_all_pairs_of_signatures(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(minhash, "_BATCH", 500)
    texts = random_texts(random.Random(seed), 80)
    size = MinHash(words=3, bands=5, rows=3)
    high, low, rows = band_names(pl.Series(texts), "documents", size)
    graph = nx.Graph()
    for name in set(zip(high.tolist(), low.tolist(), strict=True)):
        members = rows[(high == name[0]) & (low == name[1])].tolist()
        nx.add_path(graph, members) if len(members) > 1 else graph.add_nodes_from(members)
    expected = nx.Graph()
    own = {}
    for number, text in enumerate(texts):
        tokens = text.split()
        grams = {tuple(tokens[at : at + 3]) for at in range(len(tokens) - 2)} or ({tuple(tokens)} if tokens else set())
        if grams:
            hashes = ngram_hashes(pl.Series([" ".join(gram) for gram in sorted(grams)]), 3, whole=True)[0]
            own[number] = signatures(hashes, np.array([0, len(hashes)]), 15).reshape(5, 3)
    expected.add_nodes_from(own)
    for one, left in own.items():
        for other, right in own.items():
            if one != other and (left == right).all(axis=1).any():
                expected.add_edge(one, other)
    assert sorted(map(sorted, nx.connected_components(graph))) == sorted(map(sorted, nx.connected_components(expected)))
    assert len(expected) > nx.number_connected_components(expected)


def test_kinds_share_no_band() -> None:
    size = MinHash(words=5, bands=14, rows=8)
    texts = pl.Series(["one text for both of the kinds, word by word"])
    one, other = (set(band_names(texts, kind, size)[0].tolist()) for kind in ("documents", "conversations"))
    assert len(one) == 14
    assert not one & other
