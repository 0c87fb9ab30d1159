"""Personal data that can be told by its form: mail addresses, public IP addresses, phone numbers.

Each is replaced by one that is reserved for examples, so that prose stays prose and code stays code. Such examples
and the addresses of private or reserved networks are left alone. Names, street addresses and numbers in other forms
are not found.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

EMAIL = "email@example.com"
IPV4, IPV6 = "192.0.2.1", "2001:db8::1"
PHONE = "202-555-0100"
"""Reserved by RFC 2606, RFC 5737, RFC 3849 and the North American Numbering Plan (555-0100 to 555-0199)."""


@dataclass(frozen=True)
class _Kind:
    hint: str
    """A quick pattern, in Polars' syntax, that is found in each text with a match."""
    pattern: re.Pattern[str]
    replacement: Callable[[str], str | None]
    """What stands for a match; None where it is to stay."""


def mask(texts: pl.Series, kinds: Sequence[str]) -> tuple[pl.Series, dict[str, int]]:
    """The texts with personal data replaced, and how many of each kind were.

    Args:
        texts: String.
        kinds: names in KINDS.

    Returns:
        The texts, and for each of `kinds` the number of replacements.
    """
    counts = {}
    for name in kinds:
        kind = KINDS[name]
        rows = texts.str.contains(kind.hint).fill_null(False).arg_true()
        masked, counts[name] = _mask(texts.gather(rows).to_list(), kind)
        if counts[name]:
            texts = texts.clone().scatter(rows, masked)
    return texts, counts


def _mask(texts: list[str], kind: _Kind) -> tuple[list[str], int]:
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        replacement = kind.replacement(match[0])
        if replacement is None:
            return match[0]
        count += 1
        return replacement

    return [kind.pattern.sub(replace, text) for text in texts], count


def _email(match: str) -> str | None:
    is_example = re.search(r"[@.]example(?:\.(?:com|net|org))?$", match, re.IGNORECASE)
    return None if is_example else EMAIL


def _ip(match: str) -> str | None:
    try:
        address = ipaddress.ip_address(match)
    except ValueError:
        return None
    if not address.is_global or address.is_multicast:
        return None
    if address.version == 4:
        return IPV4
    return IPV6 if address in _UNICAST else None


def _phone(match: str) -> str | None:
    digits = re.sub(r"\D", "", match)
    is_example = re.fullmatch(r"1?\d{3}55501\d\d", digits)
    return PHONE if 8 <= len(digits) <= 15 and not is_example else None


_UNICAST = ipaddress.ip_network("2000::/3")
"""The public addresses of IPv6; elsewhere `bad::cafe` would be one."""

KINDS = {
    "email": _Kind(
        r"[\w%+-]@[\w-]+\.[\w-]",
        re.compile(
            r"(?<![\w.%+-])[a-z0-9](?:[\w.%+-]{0,62}[\w%+-])?@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}(?![\w-])",
            re.IGNORECASE | re.ASCII,
        ),
        _email,
    ),
    "ip": _Kind(
        r"\d\.\d{1,3}\.\d{1,3}\.\d|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]",
        re.compile(
            r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\w|\.\d)"
            r"|(?<![\w:.])[23][0-9a-f]{3}:(?:[0-9a-f]{0,4}:){1,7}[0-9a-f]{0,4}(?![\w:])",
            re.IGNORECASE | re.ASCII,
        ),
        _ip,
    ),
    "phone": _Kind(
        r"\+\d|\d\)?[ .-]?\d{3}[ .-]\d{4}",
        re.compile(
            # E.164, with separators: in possessive parts, for digits can be divided among plain ones in very many ways
            r"(?<![\w+])\+(?:\d{1,3}+(?:[ .-]?+(?:\(\d{1,4}\)|\d{1,5}+)){2,6}|\d{3}[ .-]?\d{5})(?![\w-])"
            r"|(?<![\w.+-])(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}(?![\w-]|\.\d)",  # NANP
            re.ASCII,
        ),
        _phone,
    ),
}
"""What can be masked, by name."""
