"""What benchmarks read of a stage's work is what it writes: nothing is timed here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl

from benchmarks.data import scaling_ledger
from benchmarks.data.dedup import KINDS, judge, planted_pairs
from benchmarks.data.tokenize import our_documents, write_clean
from pipeline.preprocess.ledger import COLUMNS
from pipeline.tokenize.bpe import train_bpe


def test_the_encoded_documents_that_are_compared_are_all(tmp_path: Path) -> None:
    texts = [f"Document {i} speaks of {i * i} things." for i in range(40)]
    clean = write_clean(pl.DataFrame({"id": [str(i) for i in range(40)], "text": texts}), tmp_path / "clean")
    tokenizer = tmp_path / "tokenizer" / "tokenizer.json"
    tokenizer.parent.mkdir()
    bpe = train_bpe(pl.Series(texts), 400)
    bpe.save(str(tokenizer))
    command = [sys.executable, "-m", "benchmarks.data.encode", "encode", clean, tokenizer, tmp_path / "out"]
    subprocess.run([*map(str, command), "plain", "1", "0"], check=True)

    documents, tokens = our_documents(tmp_path / "out")

    assert documents.total() == len(texts)
    assert sum(len(ids) // 2 + 1 for ids in documents.elements()) == tokens
    first = bpe.encode(texts[0], add_special_tokens=False).ids
    assert any(ids.startswith(b"".join(id.to_bytes(2, "little") for id in first)) for ids in documents)


def test_without_a_gpu_its_benchmarks_say_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--json", str(tmp_path / "figures")]
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, env=hidden, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "sees no GPU to measure" in run.stderr
    assert "failed: ssd, operators, train, decode, prefill, linear" in run.stderr
    assert not any((tmp_path / "figures").iterdir())


def test_a_ledger_without_texts_is_decided_over() -> None:
    figures = scaling_ledger.decide(3000, 5, float("inf"))
    assert figures["files"] * 1e6 > 3000 * (sum(int(dtype[1:]) for dtype in COLUMNS.values()) + 16 * 0.25)
    assert figures["read"] >= 0


def test_precision_and_recall_are_those_of_what_was_planted() -> None:
    texts = {"a": "one two three", "b": "one two three", "c": "one two four", "d": "six", "e": "seven", "f": "seven up"}
    documents = pl.DataFrame({"id": list(texts), "text": list(texts.values())})
    planted = pl.DataFrame({"id": ["b", "c", "f"], "of": ["a", "b", "e"], "kind": ["exact", "near", "near"]})
    pairs = planted_pairs(documents, planted)

    def found(kept: str, kind: str) -> tuple[int, float, float, float]:
        told = judge(set(kept), documents["id"], pairs, KINDS[kind])
        return told.gone, told.precision, told.recall("exact"), told.recall("near")

    assert found("acdef", "exact") == (1, 1, 1, 0)
    assert found("adef", "near") == (2, 1, 1, 0)  # b and c, and c is in no pair that counts, since b has two copies
    assert found("ade", "near") == (3, 1, 1, 1)
    assert found("ae", "near") == (4, 0.75, 1, 1)  # nothing is a copy of d
    assert found("de", "near") == (4, 0.25, 1, 1)  # and of a, b and c none is left
    assert found("abcde", "near") == (1, 1, 0, 1)
