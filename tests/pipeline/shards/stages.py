"""The data stages at a small setting, through an executor."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.ingest.run import ingest
from pipeline.params import LongConversations, LongDocuments
from pipeline.preprocess.run import preprocess
from pipeline.shards import Executor
from pipeline.tokenize.run import tokenize
from pipeline.work import WorkFolder
from tests.project import write_jsonl

PREPROCESS = {"min_chars": 3, "max_chars": 10_000, "validation_fraction": 0.2, "test_fraction": 0.2, "seed": 0}
TOKENIZE = {
    "tokenizer": "embedded",
    "vocab_size": 300,
    "seqlen": 64,
    "long_documents": LongDocuments.split,
    "long_conversations": LongConversations.truncate,
    "seed": 0,
}


def write_inputs(root: Path) -> Path:
    """Three small files, of several shards each."""
    for number in range(3):
        write_jsonl(root / "input" / f"{number}.jsonl", seed=number)
    return root


def run_stages(root: Path, executor: Executor, **changed: Any) -> dict[str, str]:
    """Ingest, preprocess and tokenize what is in `root`/input: the sha256 of each file that they make.

    Args:
        changed: parameters of preprocess and tokenize that are not as above.
    """
    ingest_params: Any = SimpleNamespace(source=str(root / "input"), shard_mb=0.01)
    preprocess_params: Any = SimpleNamespace(**PREPROCESS | {k: v for k, v in changed.items() if k in PREPROCESS})
    tokenize_params: Any = SimpleNamespace(**TOKENIZE | {k: v for k, v in changed.items() if k in TOKENIZE})
    work = {stage: WorkFolder(root / "work" / stage) for stage in ("ingest", "preprocess", "tokenize")}
    ingest(work["ingest"], ingest_params, executor=executor)
    preprocess(work["ingest"].out, work["preprocess"], preprocess_params, executor=executor)
    tokenize(work["preprocess"].out, work["tokenize"], tokenize_params, checkpoint="embedded", executor=executor)
    files = sorted(file for folder in work.values() for file in folder.out.rglob("*") if file.is_file())
    assert len(files) > 20
    return {file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
