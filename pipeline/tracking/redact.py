"""Secrets stay out: passwords and tokens in addresses, wherever a text is about to be logged, shown or sent."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST = 4
"""Of the secrets that are hidden wherever they stand; a shorter one would take ordinary words along."""

_USER = re.compile(r"(?<=://)[^\s'\"]*@")
_QUERY = re.compile(
    r"(?i)([?&;#](?:[\w.%-]*(?:token|pass|pwd|secret|key|auth|sign|credential|jwt)[\w.%-]*|sig|sas)=)([^&;#\s'\"]+)"
)
_ANY_VALUE = re.compile(r"[?&;#][\w.%-]+=([^&;#\s]{8,})")

_addresses: set[str] = set()


def keep_secret(uri: str) -> None:
    """Hide whatever may be a secret in this address from now on, in whatever form it is quoted."""
    _addresses.add(uri)


def redact(text: str) -> str:
    """`text` without the user:password@ and the secret query parameters of addresses, and without our own secrets."""
    for secret in sorted(set(_own_secrets()), key=len, reverse=True):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, HIDDEN)
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))


def redact_values(values: dict[str, Any]) -> dict[str, Any]:
    """The same of every text in `values`."""
    return {key: redact(value) if isinstance(value, str) else value for key, value in values.items()}


def _own_secrets() -> Iterator[str]:
    """What the environment tells MLflow in confidence; a library may quote it outside of an address."""
    yield os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    yield os.environ.get("MLFLOW_TRACKING_TOKEN", "")
    for uri in {os.environ.get("MLFLOW_TRACKING_URI", ""), *_addresses}:
        user = uri.partition("://")[2].rpartition("@")[0]
        password = user.partition(":")[2] or user  # a token may stand alone
        for secret in (user, password, *_ANY_VALUE.findall(uri), *(value for _, value in _QUERY.findall(uri))):
            yield from (secret, unquote(secret))
