"""The tokenizer trained here: lossless, the same everywhere, and its sample of a large corpus."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from pipeline.chat.tokenizer import SPECIAL_TOKENS, load_tokenizer
from pipeline.shards.tables import MESSAGES
from pipeline.tokenize.bpe import MIN_VOCAB_SIZE, sample_texts, train_bpe

SOURCE = Path(__file__).parents[3] / "pipeline"


def python_source() -> list[str]:
    return [file.read_text() for file in sorted(SOURCE.rglob("*.py"))]


def test_any_text_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    train_bpe(["for x in y:\n"], 300).save(str(path))
    tokenizer = load_tokenizer(path)
    texts = [*python_source(), "", "\t\r\n \u00a0\u2028 x", "中文 🙂\u200d♂ e\u0301 \x00", "a" * 5000, "1234567890"]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(texts)] == texts
    assert [tokenizer.control_id(name) for name in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))


def test_equal_texts_give_equal_tokenizers_for_any_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for parallel in ("true", "false", "true"):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallel)
        files.append(train_bpe(python_source(), 700).to_str())
    assert files[0] == files[1] == files[2]


def test_indentation_is_one_token_and_numbers_are_digits() -> None:
    tokenizer = train_bpe(python_source(), 1000)
    tokens = tokenizer.encode("):\n        return 123").tokens
    assert tokens == ["):Ċ", "ĠĠĠĠĠĠĠ", "Ġreturn", "Ġ", "1", "2", "3"]


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("!", "?"), ("\t", " ")])
def test_a_long_word_is_cut_for_training_alone(first: str, second: str) -> None:
    word = first * 256 + second * 256
    tokenizer = train_bpe([word], 300)
    assert tokenizer.encode(word).offsets == [(0, 256), (256, 512)]  # else one token: 300 leaves room for all merges
    assert [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("a" * 600)] == ["a" * 600]


def test_the_fast_encoder_takes_it(tmp_path: Path) -> None:
    pytest.importorskip("gigatoken")
    train_bpe(python_source(), 1000).save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.accelerated().encode(python_source()) == tokenizer.encode(python_source())


def test_a_vocabulary_without_room() -> None:
    assert train_bpe(["abc"], MIN_VOCAB_SIZE).get_vocab_size() == MIN_VOCAB_SIZE
    with pytest.raises(ValueError, match=r"tokenize\.vocab_size is 260; it must be at least 261 \(256 bytes \+ 5"):
        train_bpe(["abc"], MIN_VOCAB_SIZE - 1)


def test_the_sample_is_evenly_spaced_over_the_shards(tmp_path: Path) -> None:
    texts = [f"document {number} {'x' * 1000}" for number in range(25)]
    shards = []
    for first, last in ((0, 7), (7, 9), (9, 25)):
        shards.append(tmp_path / f"documents-{first}.parquet")
        pl.DataFrame({"text": texts[first:last]}).write_parquet(shards[-1])
    assert list(sample_texts(shards, sample_bytes=26_000)) == texts
    assert list(sample_texts(shards, sample_bytes=10_000)) == texts[::3]


def test_texts_that_repeat_count_as_often_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "documents-00000.parquet"
    texts = [f"document {number % 2} {'x' * 1000}" for number in range(24)]
    pl.DataFrame({"text": texts}).write_parquet(path)
    assert list(sample_texts([path], sample_bytes=10_000)) == texts[::3]


def test_the_sample_has_the_words_of_conversations(tmp_path: Path) -> None:
    path = tmp_path / "conversations-00000.parquet"
    messages = [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "user", "content": "c"}],
    ]
    pl.DataFrame({"messages": messages}, schema={"messages": MESSAGES}).write_parquet(path)
    assert list(sample_texts([path], sample_bytes=1_000)) == ["a", "b", "c"]
