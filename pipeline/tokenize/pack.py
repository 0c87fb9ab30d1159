"""The encoded records of one kind and split -> packed rows, and the other formats of `tokenize.formats`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.chat.tokenizer import Tokenizer
from pipeline.params import LongConversations, LongDocuments
from pipeline.rows import RowFiles, Sequences
from pipeline.shards import Executor
from pipeline.tokenize.encoded import Encoded
from pipeline.tokenize.formats import RECORD_FORMATS, ROW_FORMATS, Add, Format
from pipeline.tokenize.packing import Cut, Fitted, Pieces, cut, fewest_rows, fit
from pipeline.tokenize.write_rows import WriteRows, write_rows

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
        long: what becomes of records that are longer than a row.
        rng: draws the order of the rows; None for the order of the records.
        formats: `tokenize.formats`, what is written beside the rows.
        executor: where rows are written: on this machine.
    """
    drops = dropped(encoded, seqlen, long)
    kept = np.flatnonzero(~np.any([np.zeros(len(encoded.lengths), dtype=bool), *drops.values()], axis=0))
    whole = encoded.lengths[kept]
    lengths = whole if long is LongDocuments.split else np.minimum(whole, seqlen)
    rows = sequences = filled = supervised = least = 0
    if len(kept):
        plan, order = plan_rows(lengths, seqlen, long, rng)
        rows = len(plan)
        least = fewest_rows(lengths, seqlen) if isinstance(plan, Fitted) else rows
        files = RowFiles(directory, seqlen, tokenizer.vocab_size, tokenizer.pad_id)
        files.create(rows)
        jobs = [
            WriteRows(files, first, encoded.places(kept[pieces.records], pieces.starts, pieces.stops), pieces.counts)
            for first, pieces in _pieces(plan, order, seqlen)
        ]
        sequences = sum(len(job.places.lengths) for job in jobs)
        filled = sum(int(job.places.lengths.sum()) for job in jobs)
        supervised = sum(found for _, found in executor.run(write_rows, jobs))
        with _writing(ROW_FORMATS, formats, directory, tokenizer) as others:
            for job in jobs if others else ():
                found = job.places.read()
                for add in others:
                    add(found, job.counts)
        with _writing(RECORD_FORMATS, formats, directory, tokenizer) as others:
            for records, text_bytes in _records(encoded, kept, lengths) if others else ():
                for add in others:
                    add(records, text_bytes)
    lost = {reason: int(hit.sum()) for reason, hit in drops.items()}
    assert len(encoded.lengths) == len(kept) + sum(lost.values())
    tokens = np.zeros_like(encoded.lengths)
    tokens[kept] = lengths
    figures = {
        "records_in": len(encoded.lengths),
        "records_out": len(kept),
        "dropped": lost,
        "truncated": int((whole > lengths).sum()),
        "bytes": int(encoded.text_bytes[kept].sum()),
        "rows": rows,
        "sequences": sequences,
        "tokens": filled,
        "supervised_tokens": supervised,
        "efficiency": _efficiency(filled, rows * seqlen),
        "efficiency_bound": _efficiency(filled, least * seqlen),
    }
    return Packed(figures, tokens)


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


def dropped(encoded: Encoded, seqlen: int, long: LongRecords) -> dict[str, np.ndarray]:
    """By reason, which records (records,) bool are left out."""
    if long is LongDocuments.split:
        return {}
    if long is LongConversations.truncate:  # what is left of it must have a token to learn
        return {"prompt_too_long": encoded.first_response >= seqlen}
    return {"too_long": encoded.lengths > seqlen}


def plan_rows(
    lengths: np.ndarray, seqlen: int, long: LongRecords, rng: np.random.Generator | None
) -> tuple[Fitted | Cut, np.ndarray]:
    """The rows, and the order in which they are written: neighbours in training rows are drawn with `rng`."""
    if long is LongDocuments.split:
        records = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
        rows = cut(lengths, records, seqlen)
        return rows, np.arange(len(rows))
    fitted = fit(lengths, seqlen)
    return fitted, np.arange(len(fitted)) if rng is None else rng.permutation(len(fitted))


def _pieces(plan: Fitted | Cut, order: np.ndarray, seqlen: int) -> Iterator[tuple[int, Pieces]]:
    """What is in the rows, some at a time, with the number of their first one."""
    size = max(1, TOKENS_OF_A_JOB // seqlen)
    for first in range(0, len(order), size):
        yield first, plan.pieces(order[first : first + size])


def _records(encoded: Encoded, kept: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[Sequences, np.ndarray]]:
    """Some records at a time: the first `lengths` tokens of each, and the bytes of its text."""
    full = np.flatnonzero(np.diff(np.cumsum(lengths) // TOKENS_AT_A_TIME)) + 1
    for records, stops in zip(np.split(kept, full), np.split(lengths, full), strict=True):
        yield encoded.places(records, np.zeros_like(stops), stops).read(), encoded.text_bytes[records]
