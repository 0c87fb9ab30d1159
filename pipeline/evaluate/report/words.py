"""Figures as people read them."""

from __future__ import annotations

import time

import numpy as np

MINUS = "\N{MINUS SIGN}"


def decimal(value: float, digits: int) -> str:
    """1234.5 -> 1,234.50"""
    return f"{value:,.{digits}f}".replace("-", MINUS)


def count(value: float) -> str:
    """1234.0 -> 1,234"""
    return decimal(value, 0)


def signed(value: float, digits: int) -> str:
    """0.5 -> +0.500; what rounds to nothing has no sign."""
    rounded = round(value, digits)
    return ("+" if rounded > 0 else "") + decimal(rounded or 0.0, digits)


def percent(share: float, digits: int = 1) -> str:
    """0.285 -> 28.5 %"""
    return f"{decimal(100 * share, digits)}\N{NO-BREAK SPACE}%"


def signed_percent(share: float, digits: int = 1) -> str:
    """-0.285 -> −28.5 %"""
    return f"{signed(100 * share, digits)}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """228.4 -> 3 min 48 s"""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def memory(megabytes: float) -> str:
    """1536 -> 1.50 GiB"""
    return f"{megabytes / 1024:.2f} GiB" if megabytes >= 1024 else f"{megabytes:.0f} MiB"


def moment(seconds: float) -> str:
    """Seconds since the epoch -> 2026-01-31 14:05, local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def compact(value: float) -> str:
    """1500000 -> 1.5M: for axes."""
    for limit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def plain_percent(share: float) -> str:
    """0.000012 -> 0.0012%: for axes."""
    return np.format_float_positional(100 * share, precision=2, fractional=False, trim="-") + "%"


def reason(name: str) -> str:
    """prompt_too_long -> prompt too long"""
    return name.replace("_", " ")
