"""A tokenizer.json file as the pipeline uses it: plain text in, ids out, control tokens by name only."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from pipeline.chat.fast import FastEncoder
from pipeline.hashing import file_sha256

SPECIAL_TOKENS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
"""The control tokens of a tokenizer trained here; their ids are 0 to 4."""

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
COMPANIONS = (CONFIG_FILE, CHAT_TEMPLATE_FILE, "special_tokens_map.json", "added_tokens.json", "tokenizer.model")
"""What transformers keeps beside tokenizer.json; the config and the template are read here, the rest travels along."""

_UNHEARD_OF = ("\U00010900", "\U00012000", "\U00016800")
"""Letters (Phoenician, cuneiform, Bamum) of which a vocabulary would have to know each."""

_EOS_NAMES = (SPECIAL_TOKENS[0], "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "[EOS]", "<|im_end|>")
_BOS_NAMES = ("<s>", "<|begin_of_text|>", "<bos>", "<|bos|>", "[BOS]")


@dataclass(frozen=True)
class Tokenizer:
    """What `load_tokenizer` returns. Not for pickling: another process loads its own from the file."""

    vocab_size: int
    """One more than the highest id."""
    bos_id: int
    """Opens a text; the end-of-text token where the vocabulary has no other."""
    eos_id: int
    sha256: str
    """Of tokenizer.json."""
    backend: tokenizers.Tokenizer = field(repr=False, compare=False)
    chat_template: str | None = field(default=None, repr=False)
    """The Jinja source of its own template, if it has one."""
    names: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """The tokens that its config names, as templates know them: `bos_token`, `eos_token` and so on."""
    fast: FastEncoder | None = field(default=None, repr=False, compare=False)
    """Encodes in place of `backend`: the same ids, sooner."""

    @property
    def pad_id(self) -> int:
        """The end-of-text token: padding is told apart by the loss mask and seq_idx, never by its id."""
        return self.eos_id

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text; none are added, and a control token's name in a text is only text."""
        if self.fast:
            return self.fast.encode(texts)
        return [found.ids for found in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`encode` as arrays: the ids of all texts one after another (n,), and how many each has (texts,) int64."""
        if self.fast:
            return self.fast.encode_flat(texts)
        found = self.encode(texts)
        lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        return np.fromiter(chain.from_iterable(found), dtype=np.uint32, count=int(lengths.sum())), lengths

    def accelerated(self) -> Tokenizer:
        """The same with `fast`.

        Raises:
            ValueError: gigatoken is not installed, or does not take this tokenizer.
        """
        return replace(self, fast=FastEncoder(self.backend))

    def plain(self) -> Tokenizer:
        """The same without `fast`."""
        return replace(self, fast=None)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, control tokens left out."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def control_id(self, name: str) -> int | None:
        """The id of the control token `name`, or None where the tokenizer has none of that name."""
        token_id = self.backend.token_to_id(name)
        known = token_id is not None and token_id in self.backend.get_added_tokens_decoder()
        return token_id if known else None


def tokenizer_files(path: Path) -> list[Path]:
    """The files that make up the tokenizer at `path`: tokenizer.json and what of its companions is there.

    Args:
        path: a tokenizer.json, under any name, or a directory that holds one.

    Raises:
        ValueError: there is no such file.
    """
    file = path / TOKENIZER_FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file}: no such tokenizer file; expected a {TOKENIZER_FILE} of Hugging Face `tokenizers`")
    return [file, *(there for name in COMPANIONS if (there := file.with_name(name)).is_file())]


def copy_tokenizer(path: Path, directory: Path) -> None:
    """Put the files of the tokenizer at `path` into `directory`, byte for byte, under their usual names."""
    file, *companions = tokenizer_files(path)
    shutil.copyfile(file, directory / TOKENIZER_FILE)
    for companion in companions:
        shutil.copyfile(companion, directory / companion.name)


def load_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer at `path` (see `tokenizer_files`).

    Raises:
        ValueError: missing or malformed file, no end-of-text token, control tokens that plain text could forge, text
            that comes to nothing, or ids that differ from call to call.
    """
    file, *companions = tokenizer_files(path)
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    key = (sha256, *chain.from_iterable((companion.name, file_sha256(companion)) for companion in companions))
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = _load(file, content, sha256, companions)
    return _loaded[key]


_loaded: dict[tuple[str, ...], Tokenizer] = {}
"""The last one, by what its files hold: tokenize loads the one that it is given, and then its copy."""


def _load(file: Path, content: bytes, sha256: str, companions: Sequence[Path]) -> Tokenizer:
    configs = [companion for companion in companions if companion.name == CONFIG_FILE]
    try:
        backend = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the binding raises nothing narrower
        raise ValueError(f"{file}: not a valid {TOKENIZER_FILE}: {error}") from None
    backend.no_truncation()
    backend.no_padding()
    _refuse_dropout(backend, file)
    config = _read_config(configs[0]) if configs else {}
    eos = _named(backend, config, "eos_token", file) or _first_known(backend, _EOS_NAMES)
    if eos is None:
        raise ValueError(
            f"{file}: no end-of-text token; tried {', '.join(_EOS_NAMES)}. "
            f"Name it as eos_token in a {CONFIG_FILE} beside the file"
        )
    bos = _named(backend, config, "bos_token", file) or (None if config else _first_known(backend, _BOS_NAMES)) or eos
    unknown = _of_the_unknown(backend, file)  # which any text may come to
    added = backend.get_added_tokens_decoder().items()
    specials = [token.content for index, token in added if token.special and index not in unknown]
    _keep_control_tokens_out_of_text(backend, (eos, bos, *SPECIAL_TOKENS, *specials), file)
    vocab = backend.get_vocab(with_added_tokens=True)
    return Tokenizer(
        vocab_size=1 + max(vocab.values()),
        bos_id=vocab[bos],
        eos_id=vocab[eos],
        sha256=sha256,
        backend=backend,
        chat_template=_chat_template(config, companions),
        names={"bos_token": bos, "eos_token": eos} if not config else _names(config),
    )


def _chat_template(config: dict[str, Any], companions: Iterable[Path]) -> str | None:
    """The file of its own before the entry in the config, as transformers has it; of several there, the default."""
    for companion in companions:
        if companion.name == CHAT_TEMPLATE_FILE:
            return companion.read_text(encoding="utf-8")
    entry = config.get("chat_template")
    if isinstance(entry, list):
        return {named["name"]: named["template"] for named in entry}.get("default")
    return entry


def _names(config: dict[str, Any]) -> dict[str, str]:
    entries = {key: entry for key, entry in config.items() if key.endswith("_token")}
    names = {key: entry.get("content") if isinstance(entry, dict) else entry for key, entry in entries.items()}
    return {key: name for key, name in names.items() if isinstance(name, str)}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(config).__name__}")
    return config


def _named(backend: tokenizers.Tokenizer, config: dict[str, Any], key: str, file: Path) -> str | None:
    """The token that the config names under `key`: a string, or an object with its `content`."""
    entry = config.get(key)
    name = entry.get("content") if isinstance(entry, dict) else entry
    if name is not None and (not isinstance(name, str) or backend.token_to_id(name) is None):
        raise ValueError(f"{file.with_name(CONFIG_FILE)}: {key} is {name!r}, which {file.name} does not have")
    return name


def _first_known(backend: tokenizers.Tokenizer, names: Iterable[str]) -> str | None:
    return next((name for name in names if backend.token_to_id(name) is not None), None)


def _refuse_dropout(backend: tokenizers.Tokenizer, file: Path) -> None:
    """Of a BPE, which leaves merges out at random."""
    if getattr(backend.model, "dropout", None):
        raise ValueError(
            f"{file}: model.dropout is {backend.model.dropout:g}: each call cuts a text another way; set it to null"
        )


def _of_the_unknown(backend: tokenizers.Tokenizer, file: Path) -> set[int]:
    """The ids of characters that the vocabulary does not have: of their bytes, or of the token that stands for them."""
    found = {letter: _ids(backend, letter, file) for letter in _UNHEARD_OF}
    lost = [letter for letter, ids in found.items() if not ids]
    if lost:
        raise ValueError(
            f"{file}: characters that it does not know ({lost[0]!r}) come to no ids at all: they would vanish from the "
            "text; give its model an unk_token or byte_fallback, or take a byte-level tokenizer"
        )
    return set(chain.from_iterable(found.values()))


def _ids(backend: tokenizers.Tokenizer, text: str, file: Path) -> list[int]:
    try:
        return backend.encode(text, add_special_tokens=False).ids
    except Exception as error:  # the binding raises nothing narrower
        raise ValueError(f"{file}: it cannot encode plain text: {error}") from None


def _keep_control_tokens_out_of_text(backend: tokenizers.Tokenizer, names: Iterable[str], file: Path) -> None:
    """Make `backend` read the names of control tokens as plain text, so that no text can forge a turn."""
    backend.encode_special_tokens = True
    added = backend.get_added_tokens_decoder()
    for name in dict.fromkeys(names):
        token_id = backend.token_to_id(name)
        if token_id is None:
            continue
        if token_id not in added or not added[token_id].special:
            backend.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False)])
        if any(token_id in _ids(backend, text, file) for text in (name, f"a {name} b")):
            raise ValueError(
                f"{file}: the text {name!r} encodes to the control token itself, so any input could forge it"
            )
