"""The rules of text quality: what each measures and what it allows. Data only: params.yaml is checked against it
before any stage starts, and preprocess applies it.

Sources. gopher: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
section A.1.1 and table A1. c4: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.2. fineweb:
Penedo et al. 2024, "The FineWeb Datasets", section 3.6. code: Chen et al. 2021, "Evaluating Large Language Models
Trained on Code", section 3.1 (long lines, few alphanumerics, generated files), and Lozhkov et al. 2024, "StarCoder 2
and The Stack v2" (encoded data).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """A text stays if its `measure` is within `threshold`; `name` is the reason that it is dropped for otherwise."""

    name: str
    measure: str
    threshold: float
    is_least: bool = False
    """`threshold` is the least value allowed, else the most."""


def _least(name: str, measure: str, threshold: float) -> Rule:
    return Rule(name, measure, threshold, is_least=True)


_GOPHER = (
    Rule("gopher_duplicate_paragraphs", "duplicate_paragraphs", 0.30),
    Rule("gopher_duplicate_paragraph_chars", "duplicate_paragraph_chars", 0.20),
    Rule("gopher_duplicate_lines", "duplicate_lines", 0.30),
    Rule("gopher_duplicate_line_chars", "duplicate_line_chars", 0.20),
    Rule("gopher_top_2_gram", "top_2_gram", 0.20),
    Rule("gopher_top_3_gram", "top_3_gram", 0.18),
    Rule("gopher_top_4_gram", "top_4_gram", 0.16),
    Rule("gopher_duplicate_5_grams", "duplicate_5_grams", 0.15),
    Rule("gopher_duplicate_6_grams", "duplicate_6_grams", 0.14),
    Rule("gopher_duplicate_7_grams", "duplicate_7_grams", 0.13),
    Rule("gopher_duplicate_8_grams", "duplicate_8_grams", 0.12),
    Rule("gopher_duplicate_9_grams", "duplicate_9_grams", 0.11),
    Rule("gopher_duplicate_10_grams", "duplicate_10_grams", 0.10),
    _least("gopher_few_words", "words", 50),
    Rule("gopher_many_words", "words", 100_000),
    _least("gopher_short_words", "mean_word_length", 3),
    Rule("gopher_long_words", "mean_word_length", 10),
    Rule("gopher_hashes", "hashes_per_token", 0.1),
    Rule("gopher_ellipses", "ellipses_per_token", 0.1),
    Rule("gopher_bullet_lines", "bullet_lines", 0.9),
    Rule("gopher_ellipsis_lines", "ellipsis_lines", 0.3),
    _least("gopher_letterless_words", "tokens_with_letters", 0.8),
    _least("gopher_few_stop_words", "stop_words", 2),
)

_C4 = (
    Rule("c4_lorem_ipsum", "lorem_ipsum", 0),
    Rule("c4_curly_brackets", "curly_brackets", 0),
    _least("c4_few_sentences", "sentences", 5),
)

_FINEWEB = (
    _least("fineweb_unpunctuated_lines", "punctuated_lines", 0.12),
    Rule("fineweb_short_lines", "short_lines", 0.67),
    Rule("fineweb_duplicate_line_chars", "duplicate_filled_line_chars", 0.01),
    Rule("fineweb_newlines", "newlines_per_token", 0.3),
)

_CODE = (
    Rule("code_long_line", "longest_line", 1000),
    Rule("code_long_lines", "mean_line_length", 100),
    _least("code_few_alphanumerics", "alphanumeric", 0.25),
    Rule("code_generated", "generated_markers", 0),
    Rule("code_encoded_data", "longest_encoded_run", 1024),
)

NONE = "none"
"""The preset without rules, which stands alone."""

RULES: dict[str, tuple[Rule, ...]] = {"gopher": _GOPHER, "c4": _C4, "fineweb": _FINEWEB, "code": _CODE, NONE: ()}
"""By preset, in the order in which a text is judged: the first rule that it breaks is the reason."""

PRESETS = tuple(RULES)


def with_rules(presets: Sequence[str]) -> tuple[str, ...]:
    """Those of the presets that have rules."""
    return tuple(preset for preset in presets if RULES[preset])


def select_rules(presets: Sequence[str], thresholds: Mapping[str, float]) -> list[Rule]:
    """The rules of the presets in the order of RULES, with the given thresholds in place of their own.

    Args:
        presets: names in PRESETS.
        thresholds: rule name -> threshold, for rules of these presets.

    Raises:
        ValueError: no preset, an unknown or repeated one, or another beside `none`; or a threshold that no chosen rule
            has; says which.
    """
    if not presets:
        raise ValueError(
            f"quality must name a preset: [{NONE}] for no rules, or any of {', '.join(with_rules(PRESETS))}"
        )
    for preset in presets:
        if preset not in RULES:
            raise ValueError(f"quality must name presets of {', '.join(PRESETS)}; there is no {preset!r}")
        if list(presets).count(preset) > 1:
            raise ValueError(f"quality names {preset} twice")
    if NONE in presets and len(presets) > 1:
        raise ValueError(f"quality names {NONE} beside {', '.join(with_rules(presets))}: {NONE} must stand alone")
    chosen = [rule for preset, rules in RULES.items() if preset in presets for rule in rules]
    known = {rule.name for rule in chosen}
    for name, threshold in thresholds.items():
        if name not in known:
            import difflib  # takes a while

            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"did you mean {near[0]}?" if near else f"theirs are: {', '.join(sorted(known))}"
            hint = hint if known else f"quality is [{NONE}]"
            raise ValueError(f"thresholds.{name}: no rule of the presets in quality has this name; {hint}")
        if math.isnan(threshold):
            raise ValueError(f"thresholds.{name} must be a number; it is {threshold!r}")
    return [Rule(r.name, r.measure, thresholds.get(r.name, r.threshold), r.is_least) for r in chosen]
