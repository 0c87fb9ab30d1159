"""Mixing: the shares that the formula gives, met by whole records, the same whatever their order."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.preprocess.hashes import mix
from pipeline.preprocess.ledger import SPLIT_CODES, Ledger
from pipeline.preprocess.mixing import mix_sources, shares

SIZES = {"a": 1000, "b": 3000, "c": 6000}


def test_shares() -> None:
    assert shares(SIZES, {}, 1.0) == pytest.approx({"a": 0.1, "b": 0.3, "c": 0.6})
    assert shares(SIZES, {"a": 6.0, "c": 0.0}, 1.0) == pytest.approx({"a": 6 / 9, "b": 3 / 9, "c": 0})
    assert shares({"a": 10**9, "b": 10**6}, {}, 0.02) == {"a": 1.0, "b": pytest.approx(0)}
    flat = shares(SIZES, {}, 1e9)
    assert max(abs(share - 1 / 3) for share in flat.values()) < 1e-6
    square_roots = {name: (size * 2.0 ** (name == "b")) ** 0.5 for name, size in SIZES.items()}
    wanted = {name: part / sum(square_roots.values()) for name, part in square_roots.items()}
    assert shares(SIZES, {"b": 2.0}, 2.0) == pytest.approx(wanted)


@pytest.mark.parametrize("factor", [1e-318, 1e-300, 1e300, 1e308])
def test_weights_matter_in_proportion_only(factor: float) -> None:
    given = shares(SIZES, dict.fromkeys(SIZES, factor), 2.0)
    assert given == shares(SIZES, {}, 2.0)
    assert sum(shares(SIZES, {"a": factor}, 2.0).values()) == pytest.approx(1)
    assert shares(SIZES, {"a": 1e-308, "b": 1e308, "c": 0.0}, 1.0) == {"a": 0.0, "b": 1.0, "c": 0.0}


@pytest.mark.parametrize("seed", range(20))
def test_copies_come_as_near_as_whole_records_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 200))
    weight = float(rng.choice([0, 0.3, 0.999, 1.5, 2, rng.uniform(0, 5)]))
    of_source = rng.integers(0, 2, size)
    of_source[0] = 0
    characters, draws = rng.integers(1, 500, size), mix(np.arange(size, dtype=np.uint64))

    def copies(order: np.ndarray, block: int) -> np.ndarray:
        monkeypatch.setattr("pipeline.mapped.BLOCK", block)
        ledger = Ledger(tmp_path, [0], size)
        ledger["source"][:], ledger["characters"][:], ledger["draw"][:] = (
            of_source[order],
            characters[order],
            draws[order],
        )
        ledger["split"][:] = SPLIT_CODES.index("train")
        mixtures = mix_sources(ledger, list("ab"), {}, params(weights={"a": weight, "b": 1.0}, max_repeats=1000))
        for source, mixture in enumerate(mixtures):
            own = np.asarray(ledger["source"]) == source
            times = mixture.wanted_share * characters.sum() / mixture.characters_in
            found = np.asarray(ledger["copies"])[own]
            assert set(found.tolist()) <= {int(times + 1e-9), int(times + 1e-9) + 1}
            off = abs((found * characters[order][own]).sum() - times * mixture.characters_in)
            assert off <= characters[order][own].max() / 2 + 1e-6 * characters.sum()
        return np.array(ledger["copies"])

    if weight or of_source.any():
        counts = copies(np.arange(size), 1 << 20)
        order = rng.permutation(size)
        assert np.array_equal(copies(order, 7), counts[order])


def make_ledger(folder: Path) -> Ledger:
    rng = np.random.default_rng(0)
    ledger = Ledger(folder, [0], 3000)
    ledger["source"][:] = rng.choice([0, 1, 2], 3000, p=[0.1, 0.3, 0.6])
    ledger["kind"][:] = rng.integers(0, 2, 3000)
    ledger["split"][:] = rng.choice([SPLIT_CODES.index("train"), SPLIT_CODES.index("test")], 3000)
    ledger["characters"][:] = rng.integers(1, 1000, 3000)
    ledger["draw"][:] = mix(np.arange(3000, dtype=np.uint64))
    return ledger


def params(**changes: Any) -> Any:
    return SimpleNamespace(**{"weights": {}, "temperature": 1.0, "max_repeats": 4, "seed": 0, **changes})


def test_params_come_before_the_weights_of_the_sources(tmp_path: Path) -> None:
    """Source by source; one that sources.yaml names and that has no records left is nobody's mistake."""
    given = {"a": 3.0, "b": 5.0, "gone": 2.0}
    wanted = mix_sources(make_ledger(tmp_path / "1"), list("abc"), {}, params(weights={"a": 3.0, "b": 0.5}))
    assert mix_sources(make_ledger(tmp_path / "2"), list("abc"), given, params(weights={"b": 0.5})) == wanted
    assert mix_sources(make_ledger(tmp_path / "3"), list("abc"), given, params()) != wanted


def test_the_default_changes_nothing(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    mix_sources(ledger, list("abc"), {}, params())
    assert set(ledger["copies"].tolist()) == {1}
    assert ledger.stays("staying").all()


@pytest.mark.parametrize("block", [100, 1 << 22])
def test_training_text_takes_the_wanted_shares_and_nothing_else_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("pipeline.mapped.BLOCK", block)
    ledger = make_ledger(tmp_path)
    mixtures = mix_sources(ledger, list("abc"), {}, params(weights={"a": 3.0, "c": 0.5}))
    is_train = np.asarray(ledger["split"]) == SPLIT_CODES.index("train")
    assert ledger.stays("staying")[~is_train].all()
    assert set(ledger["copies"][~is_train].tolist()) == {1}
    for kind in ("documents", "conversations"):
        own = [mixture for mixture in mixtures if mixture.kind == kind]
        total_in, total_out = (sum(getattr(m, f"characters_{way}") for m in own) for way in ("in", "out"))
        assert total_out == pytest.approx(total_in, abs=3 * 500)
        raw = {m.source: m.characters_in * {"a": 3.0, "b": 1.0, "c": 0.5}[m.source] for m in own}
        for m in own:
            assert m.characters_out / total_out == pytest.approx(raw[m.source] / sum(raw.values()), abs=0.01)
            assert m.wanted_share == pytest.approx(raw[m.source] / sum(raw.values()))
    is_out = ~ledger.stays("staying")
    assert np.array_equal(is_out, np.asarray(ledger["copies"]) == 0)
    assert set(np.asarray(ledger["source"])[is_out].tolist()) == {2}


def test_a_source_is_not_repeated_beyond_the_bound(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    mixtures = mix_sources(ledger, list("abc"), {}, params(weights={"a": 1e6}, max_repeats=2))
    assert ledger["copies"].max() == 2
    assert [m.characters_out / m.characters_in for m in mixtures if m.source == "a"] == [2, 2]


def test_a_source_with_a_weight_that_comes_out_as_none_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(tmp_path, [0], 3)
    ledger["source"][:], ledger["split"][:], ledger["characters"][:] = [0, 1, 1], SPLIT_CODES.index("train"), 1000
    ledger["draw"][:] = mix(np.arange(3, dtype=np.uint64))
    small = mix_sources(ledger, list("ab"), {}, params(weights={"a": 0.2}))[0]
    assert (small.source, small.characters_out) == ("a", 0)  # 0.27 of 1,000 characters are nearer to none than to all
    warned = capsys.readouterr().err
    assert "preprocess.weights: nothing of source a (documents) is left to train on: 0.27 of its 1,000" in warned
    assert "source b" not in warned


def test_a_share_too_small_for_a_number_is_told_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixtures = mix_sources(make_ledger(tmp_path), list("abc"), {}, params(weights={"a": 1e-308, "b": 1e308}))
    outs = {(m.kind, m.source): m.characters_out for m in mixtures}
    assert [outs[kind, "a"] + outs[kind, "c"] for kind in ("documents", "conversations")] == [0, 0]
    assert all(outs[kind, "b"] > 0 for kind in ("documents", "conversations"))
    warned = capsys.readouterr().err
    assert warned.count("nothing of source") == 4


def test_a_kind_whose_sources_all_weigh_0_is_left_out_whole(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    is_conversation = np.asarray(ledger["kind"]) == 1
    ledger["source"][is_conversation] = 2
    ledger["source"][~is_conversation] %= 2
    mixtures = mix_sources(ledger, list("abc"), {}, params(weights={"c": 0.0}))
    assert np.array_equal(ledger.stays("staying"), ~is_conversation)
    assert np.array_equal(ledger["copies"], (~is_conversation).astype(int))
    assert {ledger.reasons[code] for code in ledger["reason"][is_conversation]} == {"mixed_out"}
    outs = {(m.kind, m.source): (m.wanted_share, m.characters_out) for m in mixtures}
    assert outs["conversations", "c"] == (0, 0)
    assert outs["documents", "a"][1] + outs["documents", "b"][1] == sum(
        m.characters_in for m in mixtures if m.kind == "documents"
    )


def test_when_all_that_is_there_weighs_0_the_error_names_it(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    ledger["source"][:] %= 2
    with pytest.raises(
        ValueError, match=r"preprocess\.weights \(or sources\.yaml\): nothing is left to train on: a, b weigh 0$"
    ):
        mix_sources(ledger, list("abc"), {}, params(weights={"a": 0.0, "b": 0.0}))


def test_an_unknown_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"preprocess\.weights\.d: there is no such source; there are a, b, c"):
        mix_sources(make_ledger(tmp_path), list("abc"), {}, params(weights={"d": 1.0}))
