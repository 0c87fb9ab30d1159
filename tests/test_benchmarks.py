"""What benchmarks read of a stage's work is what it writes: nothing is timed here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl

from benchmarks.data.tokenize import our_documents, write_clean
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
