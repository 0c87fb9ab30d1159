"""Random characters through the data stages: none fails, each record is counted, each clean document is in the rows."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tokenizers import Tokenizer

from pipeline.ingest.run import ingest
from pipeline.preprocess.run import preprocess
from pipeline.rows import RESPONSE, open_rows
from pipeline.shards import Local, verify_manifest
from pipeline.tokenize.run import tokenize
from pipeline.work import WorkFolder
from tests.pipeline.shards.stages import PARAMS, PREPROCESS, TOKENIZE

PIECES = [
    *("\x00", "\r\n", "\n\n\n", "\t", " ", "\u00a0", "\u200b", "\u2028", "\ufeff", "\ufffd", "\uffff", "\U0010ffff"),
    *("e\u0301", "\u0301", "ﬁ", "â€™", "Ã©", "<|endoftext|>", "<|end|>", "中文", "١٢", "🙂\u200d"),
    *("a@b.example", "+1 555 010 9999", "10.0.0.1", "the ", "of "),
]
"""What repair, normal forms, rules, PII and tokenizers look for."""


def random_text(rng: random.Random) -> str:
    def piece() -> str:
        if rng.random() < 0.6:
            return rng.choice(PIECES)
        code = rng.choice((0x80, 0x800, 0x10000, 0x110000))
        return chr(rng.choice([n for n in (rng.randrange(code), 0x41) if not 0xD800 <= n < 0xE000]))

    return "".join(piece() * rng.choice((1, 1, 1, 40)) for _ in range(rng.choice((0, 1, 5, 60))))


def write_records(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        for _ in range(60):
            said = [random_text(rng) for _ in range(2)]
            record = {"text": said[0]} if rng.random() < 0.5 else {"prompt": said[0], "completion": said[1]}
            file.write(json.dumps(record, ensure_ascii=rng.random() < 0.5) + "\n")
        for number in range(9):  # no split is empty
            for record in (
                {"text": f"plain text {number}"},
                {"prompt": f"ask {number}?", "completion": f"say {number}"},
            ):
                file.write(json.dumps(record) + "\n")


@pytest.mark.parametrize("seed", range(6))
def test_random_text_goes_all_the_way(tmp_path: Path, seed: int) -> None:
    write_records(tmp_path / "input/mine.jsonl", seed)
    work = {stage: WorkFolder(tmp_path / stage) for stage in ("ingest", "preprocess", "tokenize")}
    ingest(
        work["ingest"],
        replace(PARAMS.ingest, source=str(tmp_path / "input"), shard_mb=0.01),
        executor=Local(1),
    )
    settings = replace(
        PARAMS.preprocess, **PREPROCESS | {"pii": ["email", "phone", "ip"], "near_duplicates": seed % 2 == 0}
    )
    preprocess(work["ingest"].out, work["preprocess"], settings, executor=Local(1))
    clean = work["preprocess"].out
    counts = verify_manifest(clean)
    assert counts["records_in"] == sum(verify_manifest(work["ingest"].out)["records"].values()) == 78
    assert counts["records_out"] + counts["dropped"].get("contaminated", 0) > 40
    assert 78 + sum(counts["repeated"].values()) == counts["records_out"] + sum(counts["dropped"].values())
    tokenize(clean, work["tokenize"], replace(PARAMS.tokenize, **TOKENIZE), checkpoint="embedded", executor=Local(1))
    tokens = work["tokenize"].out
    figures = verify_manifest(tokens)
    tokenizer = Tokenizer.from_file(str(tokens / "tokenizer/tokenizer.json"))
    for split in figures["documents"]:
        rows = open_rows(tokens / "documents" / split)
        targets = rows.input_ids[rows.loss_mask == RESPONSE].tolist()  # of cut documents too, in the order of the rows
        ends = np.flatnonzero(np.array(targets) == figures["tokenizer"]["eos_id"])
        found = [targets[start:end] for start, end in zip([0, *(ends + 1)], ends, strict=False)]
        texts = Counter(tokenizer.decode(ids, skip_special_tokens=False) for ids in found)
        assert texts == Counter(pl.read_parquet(clean / split / "documents-*.parquet")["text"].to_list())
