"""The encoded records of one kind and split -> packed rows, and the other formats of `tokenize.formats`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline import mapped
from pipeline.chat.tokenizer import Tokenizer
from pipeline.params import LongConversations, LongDocuments
from pipeline.rows import RowFiles
from pipeline.shards import Executor
from pipeline.tokenize.encoded import Encoded
from pipeline.tokenize.fitting import fewest_rows
from pipeline.tokenize.formats import RECORD_FORMATS, ROW_FORMATS, Add, Format
from pipeline.tokenize.plan import TOKENS, plan_rows
from pipeline.tokenize.write_rows import WriteRows, Written, write_rows

LongRecords = LongDocuments | LongConversations

TOKENS_AT_A_TIME = 1 << 20
"""That are read and written for another format than rows; one record may have more."""
TOKENS_OF_A_JOB = 1 << 22
"""At most, if a row is no longer: the more, the fewer jobs there are that open a shard."""


class Packed(NamedTuple):
    """What `pack` returns."""

    figures: dict[str, Any]
    """What the manifest says of the rows."""
    tokens: np.ndarray
    """(records,) int64: of each record, those that are in rows; 0 of one that was dropped."""


def pack(
    encoded: Encoded,
    directory: Path,
    tokenizer: Tokenizer,
    *,
    seqlen: int,
    long: LongRecords,
    rng: np.random.Generator | None,
    formats: Sequence[str],
    executor: Executor,
) -> Packed:
    """Write the rows of `encoded` into `directory` (no directory where every record is dropped).

    Args:
        encoded: the plan of the rows is written into its folder.
        long: what becomes of records that are longer than a row.
        rng: draws the order of the rows; None for the order of the records.
        formats: `tokenize.formats`, what is written beside the rows.
        executor: where rows are written: on this machine.
    """
    fate = Fate()
    tokens = mapped.write(encoded.folder / TOKENS, "i8", fate.tokens(encoded, seqlen, long))
    rows = least = 0
    written = Written(0, 0, 0)
    if fate.kept:
        plan = plan_rows(tokens, encoded.folder, seqlen=seqlen, is_cut=long is LongDocuments.split, rng=rng)
        rows = len(plan.rows)
        least = rows if plan.files.is_cut else fewest_rows(tokens, seqlen)
        files = RowFiles(directory, seqlen, tokenizer.vocab_size, tokenizer.pad_id)
        files.create(rows)
        size = max(1, TOKENS_OF_A_JOB // seqlen)
        jobs = [WriteRows(files, plan.files, first, min(size, rows - first)) for first in range(0, rows, size)]
        for _, found in executor.run(write_rows, jobs):
            written = written.plus(found)
        with _writing(ROW_FORMATS, formats, directory, tokenizer) as others:
            for job in jobs if others else ():
                sequences, counts = plan.sequences(job.first, job.count)
                for add in others:
                    add(sequences, counts)
        with _writing(RECORD_FORMATS, formats, directory, tokenizer) as others:
            for records in _records(tokens) if others else ():
                sequences = encoded.places(records, np.zeros_like(records), tokens[records]).read()
                for add in others:
                    add(sequences, encoded.text_bytes[records])
    figures = {
        "records_in": len(tokens),
        "records_out": fate.kept,
        "dropped": dict(fate.dropped),
        "truncated": fate.truncated,
        "bytes": fate.text_bytes,
        "rows": rows,
        "sequences": written.sequences,
        "tokens": written.tokens,
        "supervised_tokens": written.supervised,
        "efficiency": _efficiency(written.tokens, rows * seqlen),
        "efficiency_bound": _efficiency(written.tokens, least * seqlen),
    }
    return Packed(figures, tokens)


class Fate:
    """What becomes of the records, counted."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        """By reason."""
        self.kept = self.truncated = self.text_bytes = 0
        """Of those that are kept, the bytes of their text."""

    def tokens(self, encoded: Encoded, seqlen: int, long: LongRecords) -> Iterator[np.ndarray]:
        """Of each record, the tokens that go into rows, 0 for one that is dropped; a block of records at a time."""
        for block in mapped.blocks(len(encoded.lengths)):
            whole = encoded.lengths[block]
            tokens = whole if long is LongDocuments.split else np.minimum(whole, seqlen)
            for reason, hit in _dropped(encoded, block, seqlen, long).items():
                self.dropped[reason] += int(hit.sum())
                tokens = np.where(hit, 0, tokens)
            kept = tokens > 0
            self.kept += int(kept.sum())
            self.truncated += int((kept & (whole > tokens)).sum())
            self.text_bytes += int(encoded.text_bytes[block][kept].sum())
            yield tokens
        assert len(encoded.lengths) == self.kept + self.dropped.total()


@contextmanager
def _writing(
    known: dict[str, Format], names: Sequence[str], directory: Path, tokenizer: Tokenizer
) -> Iterator[list[Add]]:
    """Those of the formats `known` that `names` has, open."""
    with ExitStack() as stack:
        formats = [write for name, write in known.items() if name in names]
        yield [stack.enter_context(write(directory, tokenizer.vocab_size)) for write in formats]


def _efficiency(tokens: int, places: int) -> float:
    return round(tokens / places, 4) if places else 0.0


def _dropped(encoded: Encoded, block: slice, seqlen: int, long: LongRecords) -> dict[str, np.ndarray]:
    """By reason, which records of a block (records,) bool are left out."""
    if long is LongDocuments.split:
        return {}
    if long is LongConversations.truncate:  # what is left of it must have a token to learn
        return {"prompt_too_long": encoded.first_response[block] >= seqlen}
    return {"too_long": encoded.lengths[block] > seqlen}


def _records(tokens: np.ndarray) -> Iterator[np.ndarray]:
    """The records that are kept, some at a time."""
    waiting, so_far = np.empty(0, dtype=np.int64), 0
    for block in mapped.blocks(len(tokens)):
        records = np.append(waiting, block.start + np.flatnonzero(tokens[block]))
        ends = so_far + np.cumsum(tokens[records])
        *full, waiting = np.split(records, np.flatnonzero(np.diff(ends // TOKENS_AT_A_TIME)) + 1)
        yield from full
        so_far = int(ends[len(records) - len(waiting) - 1]) if full else so_far
    yield waiting
