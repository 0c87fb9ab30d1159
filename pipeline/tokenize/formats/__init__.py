"""What is written beside the packed rows, by the names in `tokenize.formats`; data/README.md has the layouts.

A format is a context manager that is given a directory and the size of the vocabulary. It gives a function that adds
sequences to its files, which are whole when it ends well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from pipeline.rows import INPUT_IDS, LOSS_MASK, SEQ_IDX, Sequences
from pipeline.tokenize.formats.bridge import PACKED, write_bridge
from pipeline.tokenize.formats.jsonl import write_jsonl
from pipeline.tokenize.formats.megatron import write_megatron
from pipeline.tokenize.formats.parquet import write_parquet

Add = Callable[[Sequences, np.ndarray], None]
Format = Callable[[Path, int], AbstractContextManager[Add]]

ROW_FORMATS: dict[str, Format] = {"megatron-bridge": write_bridge}
"""Of packed rows: added with (rows,) int64, how many of the sequences are each row's."""

RECORD_FORMATS: dict[str, Format] = {"jsonl": write_jsonl, "megatron": write_megatron, "parquet": write_parquet}
"""Of records, one sequence each: added with (records,) int64, UTF-8 bytes of the text that each is made from."""

ROW_FILES = (INPUT_IDS, LOSS_MASK, SEQ_IDX, PACKED)
"""The files that have a record for each row; all others have one for each record kept."""
