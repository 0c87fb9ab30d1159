"""`packed.idx.parquet`: packed rows as Megatron-Bridge reads them for fine-tuning (GPTSFTPackedParquetDataset).

A line for each row, padding left out: input_ids list<int32>, loss_mask list<int8>, seq_start_id list<int32>, in row
groups of 500. Its mask is that of what the token predicts, so it stands one place before ours. A sequence of a single
token predicts nothing, and there it would be one of no tokens at all: it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.rows import RESPONSE, Sequences
from pipeline.tokenize.formats.parquet import lists

if TYPE_CHECKING:
    import pyarrow as pa

PACKED = "packed.idx.parquet"
ROW_GROUP = 500


@contextmanager
def write_bridge(directory: Path, vocab_size: int) -> Iterator[Callable[[Sequences, np.ndarray], None]]:
    """The format "megatron-bridge"."""
    import pyarrow as pa  # takes a while, which who does not want the format does without
    import pyarrow.parquet as pq

    lists_of = {"input_ids": pa.int32(), "loss_mask": pa.int8(), "seq_start_id": pa.int32()}
    schema = pa.schema([(name, pa.list_(dtype)) for name, dtype in lists_of.items()])
    with pq.ParquetWriter(directory / PACKED, schema, compression="zstd", write_statistics=False) as writer:
        waiting = schema.empty_table()

        def add(sequences: Sequences, counts: np.ndarray) -> None:
            nonlocal waiting
            waiting = pa.concat_tables([waiting, _table(sequences, counts, schema)])
            whole = len(waiting) - len(waiting) % ROW_GROUP
            if whole:
                writer.write_table(waiting[:whole].combine_chunks(), row_group_size=ROW_GROUP)
                waiting = waiting[whole:]

        yield add
        if len(waiting):
            writer.write_table(waiting.combine_chunks())


def _table(sequences: Sequences, counts: np.ndarray, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    keep = sequences.lengths > 1
    kept_tokens = np.repeat(keep, sequences.lengths)
    row_of = np.repeat(np.arange(len(counts)), counts)[keep]
    lengths = sequences.lengths[keep]
    learned = sequences.mask[kept_tokens] == RESPONSE
    rows = np.bincount(row_of, lengths, len(counts)).astype(np.int64)
    starts = (np.cumsum(lengths) - lengths) - (np.cumsum(rows) - rows)[row_of]
    return pa.table(
        [
            lists(rows, sequences.ids[kept_tokens], pa.int32()),
            lists(rows, np.append(learned[1:], False), pa.int8()),
            lists(np.bincount(row_of, minlength=len(counts)), starts, pa.int32()),
        ],
        schema=schema,
    )
