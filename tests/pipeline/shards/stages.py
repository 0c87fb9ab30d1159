"""The data stages at a small setting, through an executor."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.ingest.run import ingest
from pipeline.params import load_params
from pipeline.preprocess.run import preprocess
from pipeline.shards import Executor
from pipeline.tokenize.run import tokenize
from pipeline.work import WorkFolder
from tests.project import write_jsonl

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
PREPROCESS = {"min_chars": 3, "max_chars": 10_000, "validation_fraction": 0.2, "test_fraction": 0.2}
TOKENIZE = {"vocab_size": 300, "seqlen": 64, "fast": False}  # what is fast is done without the executor


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
    ingest_params = replace(PARAMS.ingest, source=str(root / "input"), shard_mb=0.01)
    preprocess_params = replace(PARAMS.preprocess, **PREPROCESS | _of(PARAMS.preprocess, changed))
    tokenize_params = replace(PARAMS.tokenize, **TOKENIZE | _of(PARAMS.tokenize, changed))
    work = {stage: WorkFolder(root / "work" / stage) for stage in ("ingest", "preprocess", "tokenize")}
    ingest(work["ingest"], ingest_params, executor=executor)
    preprocess(work["ingest"].out, work["preprocess"], preprocess_params, executor=executor)
    tokenize(work["preprocess"].out, work["tokenize"], tokenize_params, checkpoint="embedded", executor=executor)
    files = sorted(file for folder in work.values() for file in folder.out.rglob("*") if file.is_file())
    assert len(files) > 20
    return {file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _of(section: Any, changed: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changed.items() if hasattr(section, name)}
