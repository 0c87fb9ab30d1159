"""`tokens.jsonl`: a line for each record, {"input_ids": [...], "loss_mask": [...], "text_bytes": 123}."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipeline.rows import Sequences


@contextmanager
def write_jsonl(directory: Path, vocab_size: int) -> Iterator[Callable[[Sequences, np.ndarray], None]]:
    """The format "jsonl"."""
    with (directory / "tokens.jsonl").open("w", encoding="utf-8", newline="\n") as file:

        def add(sequences: Sequences, text_bytes: np.ndarray) -> None:
            ids, mask = sequences.ids.tolist(), sequences.mask.tolist()
            start = 0
            for length, size in zip(sequences.lengths.tolist(), text_bytes.tolist(), strict=True):
                part = slice(start, start + length)
                line = {"input_ids": ids[part], "loss_mask": mask[part], "text_bytes": size}
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
                start += length

        yield add
