"""Of the rows of instruction data at the defaults of params.yaml, at least 97% is no padding, counted in the rows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.ingest.embedded import embedded_pieces
from pipeline.ingest.pieces import Bounds, Record
from pipeline.params import load_params
from pipeline.rows import RESPONSE, open_rows
from tests.pipeline.tokenize.test_tokenize import run

ROOT = Path(__file__).parents[3]


def embedded_pairs() -> list[Any]:
    """Code and what it does: the pairs of every third module of the embedded corpus."""
    modules = embedded_pieces(ROOT / "embedded/corpus.yaml", ROOT / "requirements.lock")[::3]
    records = [record for module in modules for record in module.read(Bounds(record_bytes=10**9, expansion=1))]
    return [record.content for record in records if isinstance(record, Record) and isinstance(record.content, list)]


def long_tailed() -> list[Any]:
    """Log-normal lengths, as instruction data has them: a median of some 100 words, one in 50 longer than a row."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 8))) for _ in range(500)]

    def said() -> str:
        return " ".join(rng.choices(words, k=1 + round(rng.lognormvariate(3.9, 0.8))))

    return [[{"role": "user", "content": said()}, {"role": "assistant", "content": said()}] for _ in range(2000)]


@pytest.mark.parametrize("conversations", [embedded_pairs, long_tailed])
def test_rows_are_nearly_full(tmp_path: Path, conversations: Any) -> None:
    records = conversations()
    params = load_params(ROOT / "params.yaml").tokenize
    tokens, manifest = run(tmp_path, {"conversations": {"train": [records]}}, params)
    figures = manifest["conversations"]["train"]
    assert figures["records_out"] > 0.98 * len(records) > 1900
    rows = open_rows(tokens / "conversations/train")
    number = rows.seq_idx + np.arange(len(rows))[:, None] * params.seqlen  # one for each sequence of each row
    has_answer = np.zeros(len(rows) * params.seqlen, dtype=bool)  # and padding has none
    has_answer[number[rows.loss_mask == RESPONSE]] = True
    assert has_answer.sum() == figures["records_out"]
    assert has_answer[number].mean() >= 0.97
    assert figures["efficiency"] == round(float(has_answer[number].mean()), 4)
