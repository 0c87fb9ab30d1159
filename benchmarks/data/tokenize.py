"""Text to tokens here and in datatrove: speed, memory, and whether the ids are the same.

    python -m benchmarks.data.tokenize [--corpora prose code] [--mb 64] [--vocab-size 32000]

Both read the same Parquet shards and have two processes (gigatoken does without where it is done before they start)
and the same tokenizer, which is trained on the corpus first as tokenize trains it. `stage` is all that tokenize does:
encode, pack into rows, write ids, mask and boundaries; `encode` is the first part of it, with the check of gigatoken.
datatrove encodes and writes the ids of its documents, shuffled. Times are of the whole command, start and imports
included, ours the median of three.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.data import corpus
from benchmarks.data.peers import Cost, environment, run_measured, run_script
from benchmarks.machine import machine
from pipeline.chat.tokenizer import load_tokenizer
from pipeline.shards import write_manifest
from pipeline.shards.tables import DOCUMENTS, columns, shard_file, write_table
from pipeline.tokenize.bpe import train_bpe
from pipeline.tokenize.encoded import IDS

WORKERS = 2
SHARDS = 16
SEQLEN = 2048

RUNS = 3
"""Of ours, which are short: the median counts. datatrove runs once."""

THEIRS = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer

if __name__ == "__main__":
    shards, tokenizer, out, workers = sys.argv[1:]
    LocalPipelineExecutor(
        [
            ParquetReader(shards, glob_pattern="documents-*.parquet"),
            DocumentTokenizer(out + "/tokens", tokenizer, eos_token="<|endoftext|>", seed=0),
        ],
        tasks=int(workers), workers=int(workers), logging_dir=out + "/logs",
    ).run()
"""


def write_clean(table: pl.DataFrame, folder: Path) -> Path:
    """The documents as preprocess leaves them, all for training."""
    schema = columns(DOCUMENTS, split=False)
    (folder / "train").mkdir(parents=True)
    records = {}
    for index, (start, stop) in enumerate(pairwise(np.linspace(0, table.height, SHARDS + 1).astype(int).tolist())):
        name = f"train/{shard_file(DOCUMENTS, index)}"
        write_table(
            table[start:stop].with_columns(source=pl.lit("generated"), group="id").select(schema.names()), folder / name
        )
        records[name] = stop - start
    write_manifest(folder, records, {})
    return folder


def our_documents(out: Path) -> tuple[Counter[bytes], int]:
    """The ids of each document, as bytes, and the tokens in all."""
    documents: Counter[bytes] = Counter()
    tokens = 0
    for folder in sorted((out / "scratch" / "encoded").glob("*/train")):
        ids, lengths = np.fromfile(folder / IDS, np.uint16), np.load(folder / "lengths.npy")
        tokens += len(ids)
        stops = np.cumsum(lengths).tolist()
        documents.update(ids[start + 1 : stop].tobytes() for start, stop in pairwise([0, *stops]))  # less <bos>
    return documents, tokens


def their_documents(out: Path) -> Counter[bytes]:
    """The same of what datatrove wrote."""
    documents: Counter[bytes] = Counter()
    for file in sorted((out / "tokens").glob("*.ds")):
        ids, stops = np.fromfile(file, np.uint16), np.fromfile(f"{file}.index", np.uint64).astype(int).tolist()
        documents.update(ids[start:stop].tobytes() for start, stop in pairwise([0, *stops]))
    return documents


def compare(table: pl.DataFrame, vocab_size: int, folder: Path) -> None:
    """Print what each took."""
    mb = float(table["text"].str.len_bytes().sum()) / 1e6
    clean, tokenizer = write_clean(table, folder / "clean"), folder / "tokenizer" / "tokenizer.json"
    tokenizer.parent.mkdir()
    train_bpe(table["text"][: max(1, int(table.height * 16 / max(mb, 16)))], vocab_size).save(str(tokenizer))
    assert load_tokenizer(tokenizer).vocab_size <= 2**16
    costs: dict[str, Cost] = {}
    module = [sys.executable, "-m", "benchmarks.data.encode"]
    for fast in ("fast", "plain"):
        for part in ("encode", "stage"):
            name, runs = f"{part}, {fast}", list[Cost]()
            for run in range(RUNS):
                options = [str(clean), str(tokenizer), str(folder / f"{name} {run}"), fast, str(WORKERS), str(SEQLEN)]
                runs.append(run_measured([*module, part, *options]))
            costs[name] = sorted(runs, key=lambda cost: cost.seconds)[RUNS // 2]
    costs["datatrove"] = run_script(THEIRS, clean / "train", tokenizer, folder / "theirs", str(WORKERS))
    documents, tokens = our_documents(folder / "encode, fast 0")
    for name, cost in costs.items():
        speed = f"{mb / cost.seconds:7.2f} MB/s  {mb / cost.cpu_seconds:7.2f} MB/cpu-s"
        times = costs["datatrove"].seconds / cost.seconds
        print(
            f"  {name:14} {cost.seconds:7.1f} s  {speed}  {tokens / cost.seconds / 1e6:6.2f} Mtok/s  "
            f"{cost.peak_mb:6.0f} MB peak  {times:5.1f} times datatrove"
        )
    for name, found in {
        "plain": our_documents(folder / "encode, plain 0")[0],
        "datatrove": their_documents(folder / "theirs"),
    }.items():
        shared = (documents & found).total() / max(documents.total(), found.total())
        print(f"  the ids of {shared:.4%} of the documents are those of {name}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", choices=("prose", "code"), default=["prose", "code"])
    parser.add_argument("--mb", type=float, default=64)
    parser.add_argument("--vocab-size", type=int, default=32000)
    args = parser.parse_args()
    environment()
    print(f"{machine()}, {WORKERS} processes")
    for kind in args.corpora:
        with tempfile.TemporaryDirectory(prefix="tokenize-") as temporary:
            table = corpus.prose(args.mb)[0] if kind == "prose" else corpus.code(args.mb)
            print(f"{kind}: {table.height:,} documents, {table['text'].str.len_bytes().sum() / 1e6:.1f} MB")
            compare(table, args.vocab_size, Path(temporary))


if __name__ == "__main__":
    main()
