"""From measures to the reason that a text is dropped for."""

import polars as pl
import pytest

from pipeline.preprocess.quality import decide, measure
from pipeline.rules import PRESETS, RULES, select_rules, with_rules
from tests.pipeline.preprocess.quality import oracle

PASSES = {rule.measure: rule.threshold for preset in PRESETS for rule in RULES[preset] if rule.is_least}


def measures(preset: str, **changed: float | None) -> pl.DataFrame:
    """A row that passes every rule of the preset, but for what is changed."""
    row = {rule.measure: PASSES.get(rule.measure, 0.0) for rule in RULES[preset]} | changed
    return pl.DataFrame({name: pl.Series([value], dtype=pl.Float64) for name, value in row.items()})


@pytest.mark.parametrize(("preset", "rule"), [(preset, rule) for preset in PRESETS for rule in RULES[preset]])
def test_a_rule_drops_what_is_past_its_threshold_only(preset: str, rule) -> None:
    step = 0.001 if rule.threshold < 1 else 1
    past = rule.threshold - step if rule.is_least else rule.threshold + step
    verdict = decide(measures(preset, **{rule.measure: past}), [preset], {})
    assert verdict["reason"].to_list() == [rule.name]
    detail = verdict["detail"][0]
    assert detail.startswith(f"{rule.measure} ")
    assert detail.endswith(f" {'<' if rule.is_least else '>'} {rule.threshold:g}")
    for value in (rule.threshold, None):
        assert decide(measures(preset, **{rule.measure: value}), [preset], {}).rows() == [(None, None)]
    lenient = decide(measures(preset, **{rule.measure: past}), [preset], {rule.name: past})
    assert lenient["reason"].to_list() == [None]


def test_the_first_rule_that_is_broken_is_the_reason() -> None:
    both = measures("gopher", words=3.0, top_2_gram=0.5)
    assert decide(both, ["gopher"], {}).rows() == [("gopher_top_2_gram", "top_2_gram 0.5 > 0.2")]
    two = pl.concat([measures("code", longest_line=5000.0), measures("fineweb", short_lines=1.0)], how="horizontal")
    assert decide(two, ["code", "fineweb"], {})["reason"].to_list() == ["fineweb_short_lines"]


def test_every_rule_has_a_measure_and_a_name_of_its_own() -> None:
    names = [rule.name for preset in PRESETS for rule in RULES[preset]]
    assert len(names) == len(set(names))
    for preset in with_rules(PRESETS):
        assert all(rule.name.startswith(f"{preset}_") for rule in RULES[preset])
        assert {rule.measure for rule in RULES[preset]} == set(getattr(oracle, preset)("a"))


def test_the_preset_none_has_no_rules_and_stands_alone() -> None:
    assert select_rules(["none"], {}) == []
    assert with_rules(["none"]) == ()
    with pytest.raises(ValueError, match="quality names none beside gopher, c4: none must stand alone"):
        select_rules(["gopher", "none", "c4"], {})
    with pytest.raises(ValueError, match=r"quality must name a preset: \[none\] for no rules, or any of gopher, c4"):
        select_rules([], {})
    with pytest.raises(ValueError, match=r"thresholds\.c4_few_sentences: .*quality is \[none\]"):
        select_rules(["none"], {"c4_few_sentences": 1})


def test_shards_without_a_drop_between_shards_with_some() -> None:
    """Read together, each shard is a part of every column."""
    shards = [measures("code", longest_line=longest) for longest in (5000.0, 10.0, 5000.0)]
    verdicts = decide(pl.concat(shards, rechunk=False), ["code"], {})
    assert verdicts["reason"].to_list() == ["code_long_line", None, "code_long_line"]
    assert verdicts["detail"].to_list() == ["longest_line 5000.0 > 1000", None, "longest_line 5000.0 > 1000"]


def test_what_is_wrong_with_presets_and_thresholds_is_named() -> None:
    table = measure(pl.Series(["a"]), ["c4"])
    with pytest.raises(
        ValueError, match=r"quality must name presets of gopher, c4, fineweb, code, none; there is no 'c5'"
    ):
        measure(pl.Series(["a"]), ["c5"])
    with pytest.raises(ValueError, match=r"thresholds\.code_long_line: .*theirs are: c4_curly_brackets"):
        decide(table, ["c4"], {"code_long_line": 1})
    with pytest.raises(ValueError, match=r"thresholds\.c4_few_sentences must be a number"):
        select_rules(["c4"], {"c4_few_sentences": float("nan")})
