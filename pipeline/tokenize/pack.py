"""The encoded records of one kind and split -> packed rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.chat.tokenizer import Tokenizer
from pipeline.params import LongConversations, LongDocuments
from pipeline.rows import RowWriter
from pipeline.tokenize.encode import Encoded
from pipeline.tokenize.packing import Piece, cut, fit

LongRecords = LongDocuments | LongConversations


def pack(
    encoded: Encoded,
    directory: Path,
    tokenizer: Tokenizer,
    *,
    seqlen: int,
    long: LongRecords,
    rng: np.random.Generator | None,
) -> dict[str, Any]:
    """Write the rows of `encoded` into `directory` (no directory where every record is dropped).

    Args:
        long: what becomes of records that are longer than a row.
        rng: draws the order of the rows; None for the order of the records.

    Returns:
        What the manifest says of them.
    """
    drops = dropped(encoded, seqlen, long)
    kept = np.flatnonzero(~np.any([np.zeros(len(encoded.lengths), dtype=bool), *drops.values()], axis=0))
    lengths = encoded.lengths[kept]
    writer = RowWriter(directory, seqlen=seqlen, vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id)
    if len(kept):
        with writer:
            for row in plan_rows(lengths, seqlen, long, rng):
                writer.add([encoded.piece(int(kept[piece.record]), piece.start, piece.stop) for piece in row])
    counts = {reason: int(hit.sum()) for reason, hit in drops.items()}
    assert len(encoded.lengths) == len(kept) + sum(counts.values())
    return {
        "records_in": len(encoded.lengths),
        "records_out": len(kept),
        "dropped": counts,
        "truncated": int((lengths > seqlen).sum()) if long is LongConversations.truncate else 0,
        "bytes": int(encoded.text_bytes[kept].sum()),
        "rows": writer.rows,
        "sequences": writer.sequences,
        "tokens": writer.tokens,
        "supervised_tokens": writer.responses,
        "efficiency": round(writer.tokens / (writer.rows * seqlen), 4) if writer.rows else 0.0,
    }


def dropped(encoded: Encoded, seqlen: int, long: LongRecords) -> dict[str, np.ndarray]:
    """By reason, which records (records,) bool are left out."""
    if long is LongDocuments.split:
        return {}
    if long is LongConversations.truncate:  # what is left of it must have a token to learn
        return {"prompt_too_long": encoded.first_response >= seqlen}
    return {"too_long": encoded.lengths > seqlen}


def plan_rows(
    lengths: np.ndarray, seqlen: int, long: LongRecords, rng: np.random.Generator | None
) -> Iterable[list[Piece]]:
    """The rows, in the order in which they are written: neighbours in training rows are drawn with `rng`."""
    if long is LongDocuments.split:
        order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
        return cut(lengths, order.tolist(), seqlen)
    used = np.minimum(lengths, seqlen)
    rows = fit(used, seqlen)
    order = np.arange(len(rows)) if rng is None else rng.permutation(len(rows))
    return ([Piece(record, 0, int(used[record])) for record in rows[row]] for row in order)
