"""Components and matched names against searches that look at every pair."""

import random
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from pipeline.preprocess import components, runs
from pipeline.preprocess.components import flatten, unite
from pipeline.preprocess.hashes import key_names


@pytest.mark.parametrize("seed", range(20))
def test_components_against_networkx_in_any_order(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr("pipeline.mapped.BLOCK", 7)
    rng = random.Random(seed)
    size = rng.randrange(1, 100)
    pairs = [(rng.randrange(size), rng.randrange(size)) for _ in range(rng.randrange(80))]
    pairs += [(number, number + 1) for number in range(rng.randrange(size))]  # a chain
    graph = nx.Graph(pairs)
    graph.add_nodes_from(range(size))
    expected = {member: min(part) for part in nx.connected_components(graph) for member in part}
    for _ in range(2):
        rng.shuffle(pairs)
        parent = np.arange(size)
        unite(parent, np.array(pairs, dtype=np.int64).reshape(-1, 2))
        flatten(parent)
        assert parent.tolist() == [expected[number] for number in range(size)]


def test_a_long_chain_is_climbed_in_few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As overlapping windows of one text are linked; link by link it takes 32768 passes over all of it."""
    passes, array_equal = [], np.array_equal

    def counted(*arrays: np.ndarray) -> bool:
        passes.append(len(arrays[0]))
        return array_equal(*arrays)

    monkeypatch.setattr(components.np, "array_equal", counted)
    links = np.arange(2**15)
    parent = np.arange(len(links) + 1)
    unite(parent, np.stack([links, links + 1], axis=1))
    flatten(parent)
    assert not parent.any()
    assert len(passes) < 100


@pytest.mark.parametrize("seed", range(10))
def test_matches_against_all_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(runs, "RANGE_BYTES", rng.choice([100, 1000, 10**6]))
    names: list[set[bytes]] = []
    starts, paths = [], []
    for shard in range(4):
        starts.append(len(names))
        own = [{b"%d" % rng.randrange(30) for _ in range(rng.randrange(4))} for _ in range(rng.choice([0, 1, 15]))]
        flat = [(name, row) for row, members in enumerate(own) for name in sorted(members)]
        rows = np.array([row for _, row in flat], dtype=np.uint32)
        paths.append(tmp_path / f"{shard}.npy")
        runs.write_run(paths[-1], *key_names("n", [name for name, _ in flat]), rows)
        names += own
    taking_part = np.array([rng.random() < 0.8 for _ in names], dtype=bool)
    np.save(tmp_path / "mask.npy", taking_part)
    found = set()
    for job in runs.matches(paths, starts, tmp_path / "mask.npy", tmp_path / "out"):
        job.folder.mkdir(parents=True)
        runs.match(job)
        found |= set(map(tuple, np.load(job.folder / runs.PAIRS).tolist()))
    expected = set()
    for name in set().union(*names):
        first, *others = [row for row, own in enumerate(names) if name in own and taking_part[row]] or [0]
        expected |= {(first, other) for other in others}
    assert found == expected
