"""C4's rules: lines that go, and what is counted in the lines that stay."""

from __future__ import annotations

import polars as pl

LONGEST_WORD = 1000
"""Characters; a line with a longer word goes."""
FEWEST_WORDS = 3
"""Of a line that stays."""

_CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"
_ENDS = r"""[.?!"']$"""
_POLICY = "terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"
_SENTENCE = r"""(?m)[.?!][.?!"')\]]*(?:\s|$)|["']$"""


def keep_lines(texts: pl.Series) -> pl.Series:
    """The texts with only the lines that C4 keeps, less the space at their ends and marks of citation.

    A line stays if its words, white space apart, are 3 or more and none is longer than 1,000 characters, if it ends
    in `.`, `?`, `!`, `"` or `'` but not in `...`, and if it mentions neither JavaScript nor a policy. Lines for which
    the whole text is dropped (`lorem ipsum`, `{`) stay, for `measure_c4` to find.
    """
    lines = texts.alias("line").to_frame().with_row_index("text").with_columns(pl.col("line").str.split("\n"))
    lines = lines.explode("line").with_columns(pl.col("line").str.strip_chars())
    words = pl.col("line").str.count_matches(r"\S+")
    lines = lines.filter(words >= FEWEST_WORDS)
    long = lines.filter(pl.col("line").str.len_chars() > LONGEST_WORD)
    split = long["line"].str.extract_all(r"\S+").list.eval(pl.element().str.len_chars()).list.max()
    bad = long.filter(split > LONGEST_WORD).select("line").unique()
    line, lower = pl.col("line"), pl.col("line").str.to_lowercase()
    lorem, bracket = lower.str.contains("lorem ipsum", literal=True), line.str.contains("{", literal=True)
    kept = (
        lines.join(bad, on="line", how="anti", maintain_order="left")
        .with_columns(line.str.replace_all(_CITATION, ""))
        .filter(line.str.contains(_ENDS) & ~line.str.ends_with("..."))
        .filter(~(lower.str.contains("javascript", literal=True) & ~lorem))
        .filter(~(lower.str.contains(_POLICY) & ~lorem & ~bracket))
        .group_by("text", maintain_order=True)
        .agg(pl.col("line").str.join("\n"))
    )
    every = pl.DataFrame({"text": pl.Series(range(len(texts)), dtype=pl.UInt32)})
    return (
        every.join(kept, on="text", how="left", maintain_order="left")["line"]
        .fill_null("")
        .str.strip_chars()
        .alias(texts.name)
    )


def measure_c4(texts: pl.Series) -> dict[str, pl.Series]:
    """Counts in texts that `keep_lines` made; a sentence ends with `.`, `?`, `!` before a space or a line's end, or
    with a quotation mark at a line's end."""
    return {
        "lorem_ipsum": texts.str.to_lowercase().str.count_matches("lorem ipsum", literal=True).cast(pl.Int64),
        "curly_brackets": texts.str.count_matches("{", literal=True).cast(pl.Int64),
        "sentences": texts.str.count_matches(_SENTENCE).cast(pl.Int64),
    }
