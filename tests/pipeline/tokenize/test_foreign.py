"""SentencePiece and tiktoken files after their conversion, against the libraries they come from."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pipeline.chat.tokenizer import Tokenizer, load_tokenizer
from pipeline.tokenize.bpe import train_bpe
from pipeline.tokenize.foreign import take_tokenizer
from pipeline.tokenize.from_tiktoken import KNOWN, read_ranks

LINES = [
    "The cat sat on the mat, and it didn't move.",
    "def f(x):    return x + 1  # plus one",
    "na\u00efve caf\u00e9, \u4e2d\u6587 and 42 more; 1234567 <tags> [1, 2]",
] * 40
PIECES = [
    "a",
    "the ",
    "def ",
    " ",
    "   ",
    "\n",
    "\t",
    "1",
    "234",
    "\u00e9",
    "e\u0301",
    "\u4e2d",
    "\ufb01",
    "\U0001f642",
]
TEXT = st.lists(
    st.sampled_from([*PIECES, "'S", "'ll", "\u0660", "\x00", "\u2581", "<0x41>", "<", "/", "\u017f"]), max_size=12
).map("".join)

ALL_BYTES = b"".join(b"%s %d\n" % (base64.b64encode(bytes([byte])), byte) for byte in range(256))
"""The least ranks there can be."""

KINDS: dict[str, dict[str, Any]] = {
    "bpe": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"},
    "bpe, own symbols": {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "user_defined_symbols": ["<tool>"],
    },
    "unigram": {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "identity"},
    "unigram, normalised": {
        "model_type": "unigram",
        "normalization_rule_name": "nmt_nfkc",
        "remove_extra_whitespaces": True,
    },
}


def sentencepiece_model(file: Path, **options: Any) -> Path:
    written = io.BytesIO()
    defaults = {"vocab_size": 400, "hard_vocab_limit": False, "remove_extra_whitespaces": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=written, **(defaults | options)
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(written.getvalue())
    return file


def tiktoken_ranks(file: Path, size: int = 400) -> dict[bytes, int]:
    """The ranks of a byte-level BPE; written to `file`."""
    letters = {chr(code): code for code in range(256)}
    others = [byte for byte in range(256) if not (0x21 <= byte < 0x7F or 0xA1 <= byte < 0xAD or byte >= 0xAE)]
    letters |= {chr(0x100 + index): byte for index, byte in enumerate(others)}
    vocab = train_bpe(LINES, size).get_vocab(with_added_tokens=False)
    words = sorted((token, name) for name, token in vocab.items() if not name.startswith("<|"))
    ranks = {bytes(letters[char] for char in name): rank for rank, (_, name) in enumerate(words)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items()))
    return ranks


def taken(source: Path, target: Path) -> Tokenizer:
    target.mkdir(parents=True)
    take_tokenizer(source, target, LINES)
    return load_tokenizer(target)


@pytest.fixture(scope="module", params=KINDS)
def from_sentencepiece(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[sentencepiece.SentencePieceProcessor, Tokenizer]:
    folder = tmp_path_factory.mktemp("sentencepiece")
    file = sentencepiece_model(folder / "in" / "some.model", **KINDS[request.param])
    return sentencepiece.SentencePieceProcessor(model_file=str(file)), taken(file.parent, folder / "out")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=TEXT)
def test_ids_are_those_of_sentencepiece(
    from_sentencepiece: tuple[sentencepiece.SentencePieceProcessor, Tokenizer], text: str
) -> None:
    library, tokenizer = from_sentencepiece
    (ids,) = tokenizer.encode([text])
    if "<0x41>" not in text or tokenizer.backend.model.__class__.__name__ == "BPE":
        assert ids == library.encode(text)
    if library.unk_id() not in ids:
        assert tokenizer.decode(ids) == library.decode(ids)


def test_the_ends_and_the_size_are_those_of_sentencepiece(
    from_sentencepiece: tuple[sentencepiece.SentencePieceProcessor, Tokenizer],
) -> None:
    library, tokenizer = from_sentencepiece
    assert tokenizer.vocab_size == library.vocab_size()
    assert (tokenizer.bos_id, tokenizer.eos_id) == (library.bos_id(), library.eos_id())
    controls = {library.bos_id(), library.eos_id()}
    for text in ("</s>", "a</s>b <s>", "<s><s></s>", "<</s>/s>"):
        (ids,) = tokenizer.encode([text])
        assert not controls & set(ids)


def test_transformers_reads_what_was_converted(tmp_path: Path) -> None:
    file = sentencepiece_model(tmp_path / "in" / "some.model", **KINDS["bpe"])
    tokenizer = taken(file, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs(LINES[2], add_special_tokens=False)["input_ids"] == tokenizer.encode([LINES[2]])[0]
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base", "o200k_base"])
def test_ids_are_those_of_tiktoken(tmp_path: Path, name: str) -> None:
    ranks = tiktoken_ranks(tmp_path / "in" / "mine.tiktoken")
    specials = {"<|endoftext|>": len(ranks) + 7, "<|x|>": len(ranks)}
    form = {"pattern": KNOWN[name].pattern, "special_tokens": specials}
    (tmp_path / "in" / "encoding.json").write_text(json.dumps(form))
    tokenizer = taken(tmp_path / "in", tmp_path / "out")
    library = tiktoken.Encoding("mine", pat_str=POSSESSIVE[name], mergeable_ranks=ranks, special_tokens=specials)

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(text=TEXT)
    def same(text: str) -> None:
        (ids,) = tokenizer.encode([text + "<|endoftext|>"])
        assert ids == library.encode_ordinary(text + "<|endoftext|>")
        assert tokenizer.decode(ids) == text + "<|endoftext|>"

    same()
    assert tokenizer.vocab_size == library.n_vocab == len(ranks) + 8
    assert tokenizer.eos_id == library.eot_token


POSSESSIVE = {
    "gpt2": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
    "cl100k_base": (
        r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
        r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
    ),
    "o200k_base": KNOWN["o200k_base"].pattern,
}
"""As tiktoken's own encodings have them: the same words, found with less looking back."""


def test_a_known_file_needs_no_pattern_and_an_unknown_one_says_so(tmp_path: Path) -> None:
    ranks = tiktoken_ranks(tmp_path / "in" / "gpt2.tiktoken")
    assert read_ranks(tmp_path / "in" / "gpt2.tiktoken") == ranks
    assert taken(tmp_path / "in" / "gpt2.tiktoken", tmp_path / "out").eos_id == 50256
    tiktoken_ranks(tmp_path / "unknown" / "mine.tiktoken")
    with pytest.raises(ValueError, match=r"mine\.tiktoken: .*Put encoding\.json beside them"):
        taken(tmp_path / "unknown", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a", r"mine\.tiktoken: the special token 'a' is a token of the ranks too"),
        ("EOT", r"the text 'EOT' encodes to the control token itself"),
        ("###", r"the text '###' encodes to the control token itself"),
    ],
)
def test_a_special_token_that_text_would_come_to_is_refused(tmp_path: Path, name: str, message: str) -> None:
    ranks = tiktoken_ranks(tmp_path / "in" / "mine.tiktoken")
    assert not {b"EOT", b"###"} & ranks.keys()
    specials = {"<|endoftext|>": len(ranks), name: len(ranks) + 1}
    form = {"pattern": KNOWN["cl100k_base"].pattern, "special_tokens": specials}
    (tmp_path / "in" / "encoding.json").write_text(json.dumps(form))
    with pytest.raises(ValueError, match=message):
        taken(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tiktoken", b"IQ== 0\nnonsense\n", r"a\.tiktoken:2: expected a token in base64"),
        ("a.tiktoken", b"IQ== 0\n", r"byte 0x00 is no token"),
        ("a.tiktoken", b"IQ== 0\nIQ== 1\n", r"a\.tiktoken:2: the token b'!' stands there a second time"),
        ("a.tiktoken", ALL_BYTES + b"YWI= -1\n", r"a\.tiktoken: -1 is no id of a token"),
        ("a.tiktoken", ALL_BYTES + b"YWI= 2147483648\n", r"a\.tiktoken: 2147483648 is no id of a token"),
        ("a.model", b"\x00\x01", r"a\.model: not a SentencePiece model"),
        ("a.model", b"", r"a\.model: not a SentencePiece model"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        taken(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"pattern": "", "special_tokens": {"<|endoftext|>": 256}}, r"a\.tiktoken: its own library breaks down on"),
        ({"pattern": ".", "special_tokens": {"<|endoftext|>": 2**31}}, r"encoding\.json: 2147483648 is no id"),
        ({"pattern": ".", "special_tokens": {}}, r"in/a\.tiktoken: no end-of-text token"),
        (
            {"pattern": r"\S+|\s+", "special_tokens": {"<|endoftext|>": 256}},
            r"in/a\.tiktoken: the text '<\|endoftext\|>'",
        ),
    ],
)
def test_a_wrong_form_is_said_of_the_files_that_are_given(tmp_path: Path, form: dict[str, Any], message: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tiktoken").write_bytes(ALL_BYTES)
    (tmp_path / "in" / "encoding.json").write_text(json.dumps(form))
    with pytest.raises(ValueError, match=message):
        taken(tmp_path / "in", tmp_path / "out")


def test_what_cannot_be_converted_exactly_is_refused(tmp_path: Path) -> None:
    file = sentencepiece_model(
        tmp_path / "in" / "some.model", model_type="bpe", user_defined_symbols=["<tool>"], add_dummy_prefix=True
    )
    with pytest.raises(ValueError, match=r"some\.model: it cannot be converted to tokenizer\.json exactly: from token"):
        taken(file, tmp_path / "out")
    (tmp_path / "in" / "other.model").write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"more than one tokenizer there: other\.model, some\.model"):
        taken(tmp_path / "in", tmp_path / "nothing")


def test_a_config_and_a_template_beside_the_file_come_along(tmp_path: Path) -> None:
    file = sentencepiece_model(tmp_path / "in" / "some.model", **KINDS["bpe"])
    file.with_name("tokenizer_config.json").write_text('{"eos_token": "<s>"}')
    file.with_name("chat_template.jinja").write_text("{{ messages }}")
    tokenizer = taken(file.parent, tmp_path / "out")
    assert tokenizer.eos_id == 1
    assert tokenizer.chat_template == "{{ messages }}"
