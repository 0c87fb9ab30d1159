# ruff: noqa: RUF001  (the marks that are ambiguous are the point)
"""Each measure by its definition, slowly: one text, plain Python."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import groupby, pairwise, takewhile

import polars as pl

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}


@cache
def has_property(character: str, name: str) -> bool:
    """A Unicode property by Polars' tables, as the measures have it."""
    return bool(pl.Series([character]).str.contains(rf"^\p{{{name}}}$" if character != "\n" else r"\p{White_Space}")[0])


def is_space(c: str) -> bool:
    return has_property(c, "White_Space") if c != "\n" else True


def is_letter(c: str) -> bool:
    return c != "\n" and has_property(c, "L")


def is_number(c: str) -> bool:
    return c != "\n" and has_property(c, "N")


def is_core(c: str) -> bool:
    return not is_space(c) and not any(has_property(c, name) for name in ("P", "S", "Cc"))


def split(text: str, keep: Callable[[str], bool]) -> list[str]:
    """The stretches of characters for which `keep` holds."""
    return ["".join(part) for kept, part in groupby(text, keep) if kept]


def tokens(text: str) -> list[str]:
    return [token for chunk in split(text, lambda c: not is_space(c)) for token in _tokens_of(chunk)]


def _tokens_of(chunk: str) -> list[str]:
    core = [i for i, c in enumerate(chunk) if is_core(c) or c in "-@/\\~^|"]
    first, last = (core[0], core[-1]) if core else (len(chunk), len(chunk))
    outer = [i < first or i > last for i in range(len(chunk))]
    cuts = set(_contractions(chunk))
    for i, c in enumerate(chunk):
        inside = 0 < i < len(chunk) - 1 and (is_letter(chunk[i - 1]) or is_number(chunk[i - 1]))
        if outer[i] or (inside and c in "-–—,:/=<>" and is_letter(chunk[i + 1])):
            cuts |= {i, i + 1}
    cuts -= {i for i in range(1, len(chunk)) if outer[i - 1] and outer[i] and chunk[i - 1 : i + 1] == ".."}
    return [chunk[start:end] for start, end in pairwise(sorted({0, *cuts, len(chunk)}))]


def _contractions(chunk: str) -> list[int]:
    found = []
    for i, c in enumerate(chunk):
        if c in "'’" and i and is_letter(chunk[i - 1]):
            ending = "".join(takewhile(lambda after: is_letter(after) or is_number(after), chunk[i + 1 :])).lower()
            if ending in ("s", "m", "d", "ll", "re", "ve"):
                found.append(i)
            if ending == "t" and i > 1 and chunk[i - 1] in "nN" and is_letter(chunk[i - 2]):
                found.append(i - 1)
    return found


def repeats(parts: list[str]) -> tuple[int, int]:
    """How many parts stood before, and their characters."""
    again = [part for i, part in enumerate(parts) if part in parts[:i]]
    return len(again), sum(map(len, again))


def ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def top_ngram_chars(words: list[str], n: int) -> int:
    counts = Counter(ngrams(words, n))
    if not counts:
        return 0
    ngram, count = counts.most_common(1)[0]  # of several as frequent, the first
    return len(" ".join(ngram)) * count


def duplicate_ngram_chars(words: list[str], n: int) -> int:
    met, place, chars = set(), 0, 0
    while place + n <= len(words):
        ngram = tuple(words[place : place + n])
        if ngram in met:
            chars += len("".join(ngram))
            place += n
        else:
            met.add(ngram)
            place += 1
    return chars


def trim(text: str) -> str:
    """Without white space at the ends."""
    while text and is_space(text[0]):
        text = text[1:]
    while text and is_space(text[-1]):
        text = text[:-1]
    return text


def all_lines(text: str) -> list[str]:
    """The lines, the empty ones too; a newline at the end starts no other."""
    return text.removesuffix("\n").split("\n") if text else []


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def gopher(text: str) -> dict[str, float | None]:
    """The measures of the preset."""
    words = tokens(text)
    paragraphs = re.split(r"\n{2,}", trim(text))
    lines = re.split(r"\n+", text)
    measures = {
        "duplicate_paragraphs": share(repeats(paragraphs)[0], len(paragraphs)),
        "duplicate_paragraph_chars": share(repeats(paragraphs)[1], len(text)),
        "duplicate_lines": share(repeats(lines)[0], len(lines)) if text else 0.0,
        "duplicate_line_chars": share(repeats(lines)[1], len(text)),
    }
    measures |= {f"top_{n}_gram": share(top_ngram_chars(words, n), len(text)) for n in (2, 3, 4)}
    measures |= {f"duplicate_{n}_grams": share(duplicate_ngram_chars(words, n), len(text)) for n in range(5, 11)}
    real = [word for word in words if any(map(is_core, word))]
    every = all_lines(text)
    trimmed = [trim(line) for line in every]
    return measures | {
        "words": len(real),
        "mean_word_length": share(sum(map(len, real)), len(real)),
        "hashes_per_token": share(text.count("#"), len(words)),
        "ellipses_per_token": share(text.count("...") + text.count("…"), len(words)),
        "bullet_lines": share(sum(line.startswith(("•", "-")) for line in trimmed), len(every)),
        "ellipsis_lines": share(sum(line.endswith(("...", "…")) for line in trimmed), len(every)),
        "tokens_with_letters": share(sum(any(map(is_letter, word)) for word in words), len(words)),
        "stop_words": len(STOP_WORDS & set(words)),
    }


def fineweb(text: str) -> dict[str, float | None]:
    """The measures of the preset."""
    lines = [line for line in text.split("\n") if trim(line)]
    return {
        "punctuated_lines": share(sum(has_property(line[-1], "Sentence_Terminal") for line in lines), len(lines)),
        "short_lines": share(sum(len(line) <= 30 for line in lines), len(lines)),
        "duplicate_filled_line_chars": share(repeats(lines)[1], len(text.replace("\n", ""))),
        "newlines_per_token": share(text.count("\n"), len(tokens(text))),
    }


def code(text: str) -> dict[str, float | None]:
    """The measures of the preset."""
    head = "\n".join(text.split("\n")[:5])
    marks = r"(?i)\b(auto-?generated|automatically generated|generated automatically|generated by|do not edit)\b"
    return {
        "longest_line": max(map(len, text.split("\n"))),
        "mean_line_length": share(len(text), len(all_lines(text))),
        "alphanumeric": share(sum(is_letter(c) or is_number(c) for c in text), len(text)),
        "generated_markers": len(re.findall(marks, head)),
        "longest_encoded_run": max(map(len, re.findall(r"[A-Za-z0-9+/=\n]{64,}", text)), default=0),
    }


def c4_lines(text: str) -> str:
    """The text with the lines that C4 keeps."""
    kept = []
    for line in map(trim, text.split("\n")):
        words = split(line, lambda c: not is_space(c))
        line = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line, flags=re.ASCII)
        lower = line.lower()
        policy = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
        if len(words) < 3 or any(len(word) > 1000 for word in words):
            continue
        if not line.endswith((".", "?", "!", '"', "'")) or line.endswith("..."):
            continue
        drops_text = "lorem ipsum" in lower
        if "javascript" in lower and not drops_text:
            continue
        if any(phrase in lower for phrase in policy) and not drops_text and "{" not in line:
            continue
        kept.append(line)
    return trim("\n".join(kept))


_SENTENCE = r"""[.?!][.?!"')\]]*(?:[^\S\x1c-\x1f]|$)|["']$"""  # less what is white space to Python alone


def c4(text: str) -> dict[str, float | None]:
    """The measures of the preset, of the lines kept."""
    text = c4_lines(text)
    return {
        "lorem_ipsum": text.lower().count("lorem ipsum"),
        "curly_brackets": text.count("{"),
        "sentences": sum(
            len(re.findall(r"""[.?!][.?!"')\]]*(?:[^\S\x1c-\x1f]|$)|["']$""", line)) for line in text.split("\n")
        ),
    }
