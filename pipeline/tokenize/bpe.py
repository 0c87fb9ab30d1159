"""Train a byte-level BPE on the training split."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import polars as pl
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.chat.tokenizer import SPECIAL_TOKENS
from pipeline.params import MIN_VOCAB_SIZE
from pipeline.shards.tables import read_shard
from pipeline.tokenize.ahead import map_ahead

BYTES_PER_TOKEN = 12 << 10
"""Of the vocabulary: of a larger corpus, evenly spaced records of about so much are read (docs/tokenize.md)."""

WORDS = "|".join(
    (
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)",  # of "it's", "don't", "we're"
        r"[^\r\n\p{L}\p{N}]?\p{L}+",  # a word with the one sign or space before it: " of", ".append"
        r"\p{N}",  # a digit
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # a run of signs, with the line's end: "):\n"
        r"\s*[\r\n]+",  # ends of lines, with the white space before them
        r"\s+(?!\S)",  # white space but its last character, which goes to the word: "       " + " if"
        r"\s+",
    )
)
"""No merge crosses the words this finds; it loses no character and suits code as well as prose. It is the pattern
of Qwen2's tokenizer to the letter, since gigatoken knows patterns by their letters."""

_LONGEST_RUN = 256
"""Characters of a kind in a word, for training alone, where a word takes time with the square of its length: a genome
or Base64 in the text would take hours. What is cut has the same pairs but at the cuts."""


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE with `SPECIAL_TOKENS` as its first ids; equal texts give equal tokenizers on any machine.

    Args:
        vocab_size: ids in all; fewer come out where `texts` has no more pairs to merge.

    Raises:
        ValueError: `vocab_size` has no room for all bytes and the special tokens.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(
            f"tokenize.vocab_size is {vocab_size}; it must be at least {MIN_VOCAB_SIZE} "
            f"(256 bytes + {len(SPECIAL_TOKENS)} special tokens)"
        )
    tokenizer = Tokenizer(models.BPE())
    cut_words = WORDS.replace("+", f"{{1,{_LONGEST_RUN}}}").replace("*", f"{{0,{_LONGEST_RUN}}}")
    tokenizer.pre_tokenizer = _letters_of(cut_words)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=sys.stderr.isatty(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = _letters_of(WORDS)
    return tokenizer


def _letters_of(words: str) -> pre_tokenizers.PreTokenizer:
    """A letter for each byte of the words that the pattern finds."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


_TEXTS = ("text", "messages.list.element.content")
"""The columns of text, as Parquet names them."""
_LENGTH_BYTES = 4
"""Parquet puts the length before each text."""


def sample_texts(shards: Sequence[Path], sample_bytes: int) -> Iterator[str]:
    """The texts of `shards` (documents and conversations), or of every n-th record if that is above `sample_bytes`,
    as far as the footers say."""
    sizes = list(map_ahead(_size, shards))
    stride = max(1, -(-sum(size for _, size in sizes) // sample_bytes))
    offsets = accumulate((records for records, _ in sizes[:-1]), initial=0)

    def sample(place: tuple[Path, int]) -> pl.Series:
        shard, offset = place
        return _texts(read_shard(shard).gather_every(stride, -offset % stride))

    for texts in map_ahead(sample, zip(shards, offsets, strict=False)):
        yield from texts


def _size(shard: Path) -> tuple[int, int]:
    """Its records, and about the bytes of their texts, from the footer; where texts repeat, it does not have them."""
    import pyarrow.parquet as pq  # takes a while, which a tokenizer that is given does without

    footer = pq.read_metadata(shard)
    groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
    columns = [group.column(place) for group in groups for place in range(group.num_columns)]
    texts = [column for column in columns if column.path_in_schema in _TEXTS]
    if any(column.has_dictionary_page for column in texts):
        size = int(_texts(read_shard(shard)).str.len_bytes().sum())
    else:
        size = sum(column.total_uncompressed_size - _LENGTH_BYTES * column.num_values for column in texts)
    return footer.num_rows, size


def _texts(table: pl.DataFrame) -> pl.Series:
    if "text" in table.columns:
        return table["text"]
    return table["messages"].explode().struct.field("content")
