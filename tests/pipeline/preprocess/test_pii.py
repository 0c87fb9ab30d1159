"""What is taken for personal data, and what is not."""

import ipaddress
import re
import time

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.params import PII_KINDS
from pipeline.preprocess.pii import EMAIL, IPV4, IPV6, KINDS, PHONE, mask


@pytest.mark.parametrize(
    ("kind", "text", "masked"),
    [
        ("email", "mail to ada.lovelace+x@mail.analytical-engine.co.uk.", f"mail to {EMAIL}."),
        ("email", "<a_b@c.io>,d@e.fr", f"<{EMAIL}>,{EMAIL}"),
        ("ip", "8.8.8.8, (1.1.1.1:53) and 93.184.216.34.", f"{IPV4}, ({IPV4}:53) and {IPV4}."),
        ("ip", "[2a00:1450:4001:81b::200e]:443 2606:4700::1111", f"[{IPV6}]:443 {IPV6}"),
        ("ip", "2a00:1450:4001:81b:200:0:1:: and 2a00:1450:4001:81b:200:0:1:2", f"{IPV6} and {IPV6}"),
        ("phone", "+44 20 7946 0958, +4930901820; (212) 736-5000", f"{PHONE}, {PHONE}; {PHONE}"),
        ("phone", "call 212-736-5000 or 1.212.736.5000.", f"call {PHONE} or {PHONE}."),
    ],
)
def test_what_is_masked(kind: str, text: str, masked: str) -> None:
    found, counts = mask(pl.Series([text]), [kind])
    assert found.to_list() == [masked]
    assert counts == {kind: sum(masked.count(word) for word in (EMAIL, IPV4, IPV6, PHONE))}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "a@b @decorator me@localhost user@host:22 x@1.2"),
        ("email", "any@example.com, any@mail.example.org"),
        ("ip", "10.0.0.1 127.0.0.1 192.168.1.1 169.254.0.1 224.0.0.1"),
        ("ip", "300.1.1.1 1.2.3 1.2.3.4.5 v8.8.8.8 8.8.8.8a"),
        ("ip", "fe80::1 ::1 2001:db8::5 std::vector bad::cafe 12:30:45"),
        ("phone", "1 + 2, +1, 2024-01-31, 100 200 3000, 3.14159265, x = +12345"),
    ],
)
def test_what_is_left_alone(kind: str, text: str) -> None:
    found, counts = mask(pl.Series([text]), [kind])
    assert (found.to_list(), counts) == ([text], {kind: 0})


def test_kinds_are_chosen_and_nulls_stay() -> None:
    texts = pl.Series("t", ["a@b.fr 8.8.8.8", None, "none"])
    found, counts = mask(texts, ["ip", "phone"])
    assert found.to_list() == [f"a@b.fr {IPV4}", None, "none"]
    assert counts == {"ip": 1, "phone": 0}
    assert texts[0] == "a@b.fr 8.8.8.8"
    assert mask(texts, [])[0].equals(texts)


def test_the_kinds_are_those_that_params_yaml_may_name() -> None:
    assert tuple(KINDS) == PII_KINDS


PLAIN_PHONE = re.compile(r"(?<![\w+])\+\d{1,3}(?:[ .-]?(?:\(\d{1,4}\)|\d{1,5})){2,6}(?![\w-])", re.ASCII)
"""What international numbers look like, without a thought to how long it takes to tell."""


@settings(max_examples=200, deadline=None)
@given(st.text("12345 .-()x+", max_size=20).map("+".__add__))
def test_an_international_number_is_what_it_looks_like(text: str) -> None:
    plain, found = PLAIN_PHONE.match(text), KINDS["phone"].pattern.match(text)
    if plain and sum(map(str.isdigit, plain[0])) >= 8:  # of fewer, none is masked
        assert found
        assert found[0] == plain[0]
    elif not plain:
        assert not found


def test_digits_that_are_no_phone_number_take_no_long_time() -> None:
    """They can be divided in tens of thousands of ways. Trying them all takes hundreds of times as long, so a fifth
    holds on a busy machine, too."""
    text, seconds = (" +" + "1" * 40) * 200, {}
    for pattern in (PLAIN_PHONE, KINDS["phone"].pattern):
        start = time.process_time()
        assert not pattern.search(text)
        seconds[pattern] = time.process_time() - start
    assert seconds[KINDS["phone"].pattern] < seconds[PLAIN_PHONE] / 5


@settings(max_examples=50, deadline=None)
@given(st.lists(st.ip_addresses(), min_size=10, max_size=20))
def test_an_address_is_masked_if_it_is_public(addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> None:
    found, _ = mask(pl.Series([f"at {address}, see" for address in addresses]), ["ip"])
    for address, text in zip(addresses, found, strict=True):
        public = address.is_global and not address.is_multicast and (address.version == 4 or int(address) >> 125 == 1)
        assert text == f"at {(IPV4 if address.version == 4 else IPV6) if public else address}, see"


WHOLE = ["a@b.de", "8.8.4.4", "2606:4700::1", "+49 30 901820", "212-736-5000"]
PIECES = st.lists(st.sampled_from([*"ab1208@.+-() :\n", *WHOLE]), max_size=12)


@settings(max_examples=50, deadline=None)
@given(st.lists(PIECES.map("".join), min_size=10, max_size=20))
def test_the_hint_misses_nothing_and_masking_twice_changes_nothing(texts: list[str]) -> None:
    for name, kind in KINDS.items():
        hinted = pl.Series(texts).str.contains(kind.hint)
        assert all(hint or not kind.pattern.search(text) for hint, text in zip(hinted, texts, strict=True)), name
        once, _ = mask(pl.Series(texts), [name])
        twice, counts = mask(once, [name])
        assert (twice.to_list(), counts) == (once.to_list(), {name: 0})
