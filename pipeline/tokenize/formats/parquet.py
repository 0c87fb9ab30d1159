"""`tokens.parquet`: a row for each record, input_ids list<int32>, loss_mask list<int8>, text_bytes int64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.rows import Sequences

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def write_parquet(directory: Path, vocab_size: int) -> Iterator[Callable[[Sequences, np.ndarray], None]]:
    """The format "parquet"; what is added at a time becomes a row group."""
    import pyarrow as pa  # takes a while, which who does not want the format does without
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("input_ids", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.int8())), ("text_bytes", pa.int64())]
    )
    with pq.ParquetWriter(directory / "tokens.parquet", schema, compression="zstd", write_statistics=False) as writer:

        def add(sequences: Sequences, text_bytes: np.ndarray) -> None:
            ids = lists(sequences.lengths, sequences.ids, pa.int32())
            mask = lists(sequences.lengths, sequences.mask, pa.int8())
            writer.write_table(pa.table([ids, mask, pa.array(text_bytes)], schema=schema))

        yield add


def lists(lengths: np.ndarray, values: np.ndarray, dtype: pa.DataType) -> pa.ListArray:
    """A list for each of `lengths`, of that many of `values`."""
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values.astype(dtype.to_pandas_dtype())))
