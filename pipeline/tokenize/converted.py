"""A tokenizer of another format after its conversion, and what to prove it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tokenizers import Tokenizer

ENCODING_FILE = "encoding.json"
"""Beside tiktoken's ranks: what they lack."""


@dataclass(frozen=True)
class Converted:
    backend: Tokenizer
    names: dict[str, str]
    """`bos_token`, `eos_token` and so on, as far as the format says."""
    oracle: Callable[[str], list[int]]
    """Text to ids by the library of the format, control tokens taken as text."""
    is_outside: Callable[[str], bool] = field(default=lambda text: False)
    """Texts for which the ids are not promised to be the library's."""


AWKWARD = (
    "",
    " ",
    "  ",
    "a",
    " a",
    "a ",
    "  a  b  ",
    "\n",
    "\n\n a\r\n\tb\n",
    "a\u00a0b\u3000c\u2009d",
    "I'll DON'T he'S 'tis ''s '\u017f",
    "1 12 123 1234 12345 ١٢٣ ½ ②",
    "naïve e\u0301 ÅÅ ﬁ ǆ İı ß ẞ",
    "中文、日本語テキスト。한국어",
    "🙂👩\u200d👩\u200d👧 \U000e0041 \ufeff \ufffd",
    "\x00\x01\x7f\x85\u200b\u2028",
    "▁ ▁▁a ▁",
    "<0x41><0x0A> <unk></s><s> <|endoftext|>",
    "def f(x):\n    return x_1 + 0x1F  # ...\n\n\n",
    "https://a.b/c?d=e&f=%20#g ../.. --x=\"y\" {'z': [1]}",
    "a" * 40 + " " * 17 + "!" * 23 + "\n" * 9,
)
"""Where tokenizers differ: white space, contractions, digits, normal forms, unknown characters, names of pieces."""
