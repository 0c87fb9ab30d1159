"""tiktoken's ranks (one base64 token and its rank a line) -> a byte-level BPE."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from pipeline.tokenize.converted import ENCODING_FILE, Converted

_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SHORT}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Encoding(NamedTuple):
    """What the ranks lack: the words that no merge crosses, and the control tokens."""

    pattern: str
    special_tokens: dict[str, int]


KNOWN = {
    "gpt2": Encoding(_GPT2, {"<|endoftext|>": 50256}),
    "r50k_base": Encoding(_GPT2, {"<|endoftext|>": 50256}),
    "p50k_base": Encoding(_GPT2, {"<|endoftext|>": 50256}),
    "cl100k_base": Encoding(
        _CL100K,
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k_base": Encoding(_O200K, {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}),
}
"""OpenAI's encodings, by the name of their file."""


def read(file: Path) -> Converted:
    """Convert the ranks in `file`.

    A merge is a pair of tokens that is a token itself; tiktoken makes them in the order of the rank of what they make,
    and takes a word that is a token whole.

    Raises:
        ValueError: a damaged line, nothing says the pattern, or a special token is one of the ranks too.
    """
    ranks, encoding = read_ranks(file), find_encoding(file)
    taken = sorted(set(ranks.values()) & set(encoding.special_tokens.values()))
    if taken:
        raise ValueError(f"{file}: rank {taken[0]} is that of a special token too; correct {ENCODING_FILE}")
    letters = _letters()
    spelled = {token: "".join(letters[byte] for byte in token) for token in ranks}
    twice = sorted(encoding.special_tokens.keys() & set(spelled.values()))
    if twice:
        raise ValueError(f"{file}: the special token {twice[0]!r} is a token of the ranks too; correct {ENCODING_FILE}")
    merges = [
        (rank, ranks[token[:cut]], ranks[token[cut:]], token, cut)
        for token, rank in ranks.items()
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    pairs = [(spelled[token[:cut]], spelled[token[cut:]]) for *_, token, cut in sorted(merges)]
    vocab = {spelled[token]: rank for token, rank in ranks.items()} | encoding.special_tokens
    backend = Tokenizer(models.BPE(vocab, pairs, ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(encoding.pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in sorted(encoding.special_tokens)])
    library = tiktoken.Encoding(
        file.stem, pat_str=encoding.pattern, mergeable_ranks=ranks, special_tokens=encoding.special_tokens
    )
    names = {"eos_token": "<|endoftext|>"} if "<|endoftext|>" in encoding.special_tokens else {}
    return Converted(backend, names, library.encode_ordinary)


def read_ranks(file: Path) -> dict[bytes, int]:
    """The rank of each token.

    Raises:
        ValueError: a damaged line, a token or rank that stands twice, or a byte that is no token.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            if not line:
                continue
            encoded, rank = line.split()
            token, place = base64.b64decode(encoded, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise ValueError(f"{file}:{number}: expected a token in base64 and its rank, found {line[:60]!r}") from None
        if token in ranks:
            raise ValueError(f"{file}:{number}: the token {token[:60]!r} stands there a second time")
        ranks[token] = place
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ValueError(f"{file}: byte {missing[0]:#04x} is no token; the file is cut off or of another format")
    if len(set(ranks.values())) < len(ranks):
        raise ValueError(f"{file}: two tokens have the same rank")
    _check_ids(ranks.values(), file)
    return ranks


def find_encoding(file: Path) -> Encoding:
    """From the `encoding.json` beside `file`, or known by its name.

    Raises:
        ValueError: neither is there, or the former is not as it should be.
    """
    beside = file.with_name(ENCODING_FILE)
    if not beside.is_file():
        if file.stem in KNOWN:
            return KNOWN[file.stem]
        raise ValueError(
            f"{file}: the ranks alone do not say how text is cut into words. Put {ENCODING_FILE} beside them "
            f'({{"pattern": "...", "special_tokens": {{"<|endoftext|>": 50256}}}}) and name the directory; '
            f"the files {', '.join(f'{name}.tiktoken' for name in KNOWN)} need none"
        )
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
        encoding = Encoding(content["pattern"], {str(k): int(v) for k, v in content["special_tokens"].items()})
        Regex(encoding.pattern)
    except Exception as error:  # of JSON, of its form, or of the pattern
        raise ValueError(f"{beside}: expected an object with pattern and special_tokens (name: id): {error}") from None
    _check_ids(encoding.special_tokens.values(), beside)
    return encoding


def _check_ids(ids: Collection[int], file: Path) -> None:
    """
    Raises:
        ValueError: an id does not fit into 31 bits, as Megatron-LM and torch want it.
    """
    if wrong := [each for each in ids if not 0 <= each < 2**31]:
        raise ValueError(f"{file}: {wrong[0]} is no id of a token: ids are from 0 to {2**31 - 1}")


def _letters() -> list[str]:
    """The letter by which a byte-level vocabulary spells each byte: printable Latin-1 as it is, others from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
