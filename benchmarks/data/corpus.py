"""Shards to measure on, the same for the same seed and Python.

    python -m benchmarks.data.corpus prose|code|chat FOLDER [--mb 64] [--shards 8] [--seed 0] [--jsonl]

prose: documents that a word-bigram model of the standard library's docstrings writes, of lognormal length; one in
twenty a copy of an earlier one, one in ten a copy with some words changed, one in sixteen unfit in one of the ways
that quality rules look for. What was planted is listed in FOLDER.planted.parquet (`id`, `of`: the one it is a copy of,
`kind`: exact, near or one of UNFIT, `changed`: the share of words changed).
code: the standard library's sources (31.5 MB of Python 3.11), a document for each file, and after them those of the
packages in the environment, which requirements.lock pins; without a package's copies, and its files above 256 KB, which
are generated tables.
chat: conversations of one to many turns, of lognormal length, written by the same model.

The shards are as ingest writes them (data/README.md), with the manifest; with --jsonl they are JSONL files of
`id` and `text`, or `id` and `messages`.
"""

from __future__ import annotations

import argparse
import ast
import re
import sysconfig
from collections.abc import Iterator
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.shards import write_manifest
from pipeline.shards.tables import CONVERSATIONS, DOCUMENTS, columns, shard_file, write_table

EXACT, NEAR = 1 / 20, 1 / 10
UNFIT = {"repeated": 1 / 80, "bullets": 1 / 80, "fragments": 1 / 80, "symbols": 1 / 80, "ellipses": 1 / 80}
WORD_BYTES = 5.8
"""Of a word of `BigramModel` and the space after it, about."""

MOST_OF_A_PACKAGE = 256 << 10
"""Characters of a file."""

Ids = np.ndarray[Any, np.dtype[np.int32]]


def prose(mb: float, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """About `mb` MB of documents (`id`, `text`) and what was planted (`id`, `of`, `kind`, `changed`)."""
    rng = np.random.default_rng(seed)
    model = bigram_model()
    lengths = np.clip(rng.lognormal(5.3, 0.8, size=max(1, int(mb * 1e6 / WORD_BYTES / 276))), 8, 20_000).astype(int)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    stream = model.write(int(bounds[-1]), rng)
    shares = {"": 1 - EXACT - NEAR - sum(UNFIT.values()), "exact": EXACT, "near": NEAR, **UNFIT}
    kinds = rng.choice(list(shares), size=len(lengths), p=list(shares.values()))
    texts: list[str] = []
    planted = []
    for index, (start, end) in enumerate(pairwise(bounds)):
        kind, of, changed = (str(kinds[index]) if index else ""), None, None
        if kind in ("exact", "near"):
            of = int(rng.integers(index))
            text, changed = texts[of], 0.0
            if kind == "near":
                changed = float(rng.uniform(0.01, 0.1))
                text = _change(text, changed, model, rng)
        elif kind:
            text = _spoil(kind, stream[start:end], model, rng)
        else:
            text = model.spell(stream[start:end])
        texts.append(text)
        if kind:
            planted.append((_id(index), None if of is None else _id(of), kind, changed))
    schema = {"id": pl.String, "of": pl.String, "kind": pl.String, "changed": pl.Float64}
    documents = pl.DataFrame({"id": [_id(index) for index in range(len(texts))], "text": texts})
    return documents, pl.DataFrame(planted, schema=schema, orient="row")


def code(mb: float) -> pl.DataFrame:
    """Files of the standard library and, after them, of packages (`id`, `text`), up to `mb` MB."""
    rows: list[tuple[str, str]] = []
    size = 0.0
    known: set[str] = set()
    packages = ((name, text) for name, text in _sources("purelib") if len(text) <= MOST_OF_A_PACKAGE)
    for name, text in chain(_sources(), (found for found in packages if found[1] not in known)):
        if size >= mb * 1e6:
            break
        rows.append((name, text))
        known.add(text)
        size += len(text.encode())
    return pl.DataFrame(rows, schema={"id": pl.String, "text": pl.String}, orient="row")


def chat(mb: float, seed: int = 0) -> pl.DataFrame:
    """About `mb` MB of conversations (`id`, `messages`)."""
    rng = np.random.default_rng(seed)
    model = bigram_model()
    count = max(1, int(mb * 1e6 / WORD_BYTES / 340))
    turns = np.minimum(rng.geometric(0.65, size=count), 12)
    conversations = []
    for exchanges in turns:
        roles = ["system"] * int(rng.random() < 0.3) + ["user", "assistant"] * int(exchanges)
        medians = [{"system": 20, "user": 25, "assistant": 110}[role] for role in roles]
        sizes = np.clip(rng.lognormal(np.log(medians), 0.9), 3, 4_000).astype(int)
        conversations.append((roles, sizes))
    stream = model.write(int(sum(sizes.sum() for _, sizes in conversations)), rng)
    rows, position = [], 0
    for index, (roles, sizes) in enumerate(conversations):
        messages = []
        for role, size in zip(roles, sizes, strict=True):
            messages.append({"role": role, "content": model.spell(stream[position : position + size])})
            position += int(size)
        rows.append({"id": _id(index), "messages": messages})
    return pl.DataFrame(rows, schema={"id": pl.String, "messages": columns(CONVERSATIONS, split=False)["messages"]})


def write_shards(table: pl.DataFrame, folder: Path, shards: int, *, jsonl: bool = False) -> list[Path]:
    """Cut a table of `prose`, `code` or `chat` into files of about equal size; returns them in order."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = DOCUMENTS if "text" in table.columns else CONVERSATIONS
    bounds = np.linspace(0, table.height, shards + 1).astype(int)
    files = {}
    for index, (start, end) in enumerate(pairwise(bounds.tolist())):
        part = table[start:end]
        path = folder / shard_file(kind, index)
        if jsonl:
            path = path.with_suffix(".jsonl")
            part.write_ndjson(path)
        else:
            ingested = part.with_columns(source=pl.lit("generated"), group="id", split=pl.lit(None, dtype=pl.String))
            write_table(ingested.select(columns(kind, split=True).names()), path)
        files[path] = part.height
    if not jsonl:
        write_manifest(folder, {path.name: records for path, records in files.items()}, {})
    return list(files)


class BigramModel:
    """A word-bigram model: what follows a word is drawn from what followed it in its text."""

    def __init__(self, sentences: list[list[str]]) -> None:
        words = [word for sentence in sentences for word in sentence]
        self.vocabulary, flat = np.unique(np.array(words, dtype=object), return_inverse=True)
        ends = np.cumsum([len(sentence) for sentence in sentences]) - 1
        self.starts: Ids = flat[np.concatenate([[0], ends[:-1] + 1])].astype(np.int32)
        self.is_end = np.zeros(len(self.vocabulary), dtype=bool)
        self.is_end[flat[ends]] = True
        order = np.argsort(flat[:-1], kind="stable")
        self.followers: Ids = flat[1:][order].astype(np.int32)
        self.first = np.searchsorted(flat[:-1][order], np.arange(len(self.vocabulary) + 1))
        self.spellings = np.concatenate([self.vocabulary + sep for sep in (" ", "\n", "\n\n")])

    def write(self, count: int, rng: np.random.Generator) -> Ids:
        """`count` word numbers; many walkers write at once, and what they wrote is put end to end.

        A number n stands for word n % V and, n // V, the space, newline or blank line after it.
        """
        walkers = min(2048, max(1, count // 500))
        size = len(self.vocabulary)
        words = np.empty((walkers, -(-count // walkers)), dtype=np.int32)
        word = rng.choice(self.starts, walkers)
        for step in range(words.shape[1]):
            words[:, step] = word
            width = self.first[word + 1] - self.first[word]
            follower = self.followers[self.first[word] + (rng.random(walkers) * width).astype(np.int64)]
            word = np.where(self.is_end[word], rng.choice(self.starts, walkers), follower)
        stream = words.ravel()[:count]
        chance = np.where(self.is_end[stream], rng.random(count), 1.0)
        return stream + np.int32(size) * ((chance < 0.25).astype(np.int32) + (chance < 0.1))

    def spell(self, words: Ids) -> str:
        """The text of word numbers, without space at its end."""
        return "".join(self.spellings[words]).rstrip()


@cache
def bigram_model() -> BigramModel:
    """Of the sentences in the docstrings of the standard library, its tests left out."""
    sentences = []
    for name, text in _sources():
        if "test" in name:
            continue
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                    words = paragraph.split()
                    if len(words) > 5 and words[-1][-1] in ".!?" and words[0][0].isupper():
                        kept = [word for word in words if re.fullmatch(r"[A-Za-z][A-Za-z'-]*[.,;:?!]?", word)]
                        if len(kept) > 0.9 * len(words) and kept[-1] == words[-1]:
                            sentences.append(kept)
    return BigramModel(sentences)


def _sources(where: str = "stdlib") -> Iterator[tuple[str, str]]:
    """Name and text of the files there, as sysconfig names it."""
    root = Path(sysconfig.get_paths()[where])
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if "site-packages/" not in name:
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            if text.strip():
                yield name, text


def _id(index: int) -> str:
    return f"generated:{index:07d}"


def _change(text: str, share: float, model: BigramModel, rng: np.random.Generator) -> str:
    """The text with a share of its words (at least one) swapped for others."""
    words = text.split(" ")
    places = rng.choice(len(words), size=max(1, int(share * len(words))), replace=False)
    for place, word in zip(places, rng.choice(model.followers, len(places)), strict=True):
        words[place] = model.vocabulary[word]
    return " ".join(words)


def _spoil(kind: str, words: Ids, model: BigramModel, rng: np.random.Generator) -> str:
    lines = [model.spell(words[start : start + 9]) for start in range(0, len(words), 9)]
    if kind == "repeated":
        return "\n".join(lines[i] for i in rng.integers(max(1, len(lines) // 3), size=len(lines)))
    if kind == "bullets":
        return "\n".join(f"- {line}" for line in lines)
    if kind == "fragments":
        return "\n".join(model.spell(words[start : start + 3]) for start in range(0, len(words), 3))
    if kind == "symbols":
        marks = rng.choice(["#", "##", "=>", "|", "12", "3.5", "$"], size=len(words))
        spelled = model.spell(words).split(" ")
        return " ".join(f"{word} {mark}" for word, mark in zip(spelled, marks, strict=False))
    assert kind == "ellipses"
    return "\n".join(f"{line} ..." for line in lines)


def main() -> None:
    """Write one of the corpora."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("prose", "code", "chat"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mb", type=float, default=64)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jsonl", action="store_true")
    args = parser.parse_args()
    if args.kind == "prose":
        table, planted = prose(args.mb, args.seed)
        args.folder.parent.mkdir(parents=True, exist_ok=True)
        planted.write_parquet(args.folder.with_name(f"{args.folder.name}.planted.parquet"))
    else:
        table = code(args.mb) if args.kind == "code" else chat(args.mb, args.seed)
    files = write_shards(table, args.folder, args.shards, jsonl=args.jsonl)
    print(f"{args.folder}: {table.height:,} records in {len(files)} shards")


if __name__ == "__main__":
    main()
