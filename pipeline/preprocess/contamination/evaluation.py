"""The n-grams of the evaluation sets: of the held-out records, and of files of the user's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from pipeline.preprocess.ngrams import ngram_hashes
from pipeline.preprocess.prepare import Preparation, prepare_table, whole_texts
from pipeline.preprocess.quality import rewrites
from pipeline.preprocess.words import Ints
from pipeline.shards.tables import DOCUMENTS

SUFFIXES = (".jsonl", ".parquet", ".txt")


@dataclass(frozen=True)
class Collect:
    """Take the n-grams of `n` words of some records of a shard; `rows` is what `choose` gave."""

    path: Path
    kind: str
    preparation: Preparation
    rows: str
    n: int
    folder: None = None

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        return self.path.name


def collect(job: Collect) -> pl.DataFrame:
    """`hash` of each n-gram, `evaluation`: the id of its record."""
    return _of_both_forms(pl.read_parquet(job.path, glob=False)[chosen(job.rows)], job.kind, job.preparation, job.n)


def choose(is_chosen: np.ndarray[Any, Any]) -> str:
    """Some records of a shard, from a bool for each, as a job holds them: a bit for each, in hexadecimal digits."""
    return np.packbits(is_chosen).tobytes().hex()


def chosen(rows: str) -> Ints:
    """The places of the records that `choose` was given."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(bytes.fromhex(rows), dtype=np.uint8)))


def file_ngrams(path: Path, preparation: Preparation, n: int) -> pl.DataFrame:
    """As `collect`, of a file or of the files of a directory; the id is `<file>:<line or row>`.

    A line of JSON lines or a row of Parquet is one record, whose text is all strings in it, in their order; a file
    of plain text is one. Texts are prepared as those of training are.

    Raises:
        ValueError: a file is of another format, or malformed; there is no text in any.
    """
    if path.is_file():
        files = {path.name: path}
    else:
        found = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
        files = {name: found[name] for name in sorted(found) if not name.rpartition("/")[2].startswith(".")}
    tables, texts_found = [no_ngrams()], 0
    for name, file in files.items():
        if file.suffix not in SUFFIXES:
            if name == "README.md":
                continue
            raise ValueError(
                f"preprocess.evaluation_sets: {file}: unknown format {file.suffix!r}; known are {', '.join(SUFFIXES)}"
            )
        numbered = [(f"{name}:{number}", text) for number, text in enumerate(_texts(file), start=1) if text.strip()]
        records = pl.DataFrame(numbered, schema={"id": pl.String, "text": pl.String}, orient="row")
        tables.append(_of_both_forms(records, DOCUMENTS, preparation, n))
        texts_found += len(numbered)
    if not texts_found:
        raise ValueError(
            f"preprocess.evaluation_sets: {path}: there is no text in it; bring files of {', '.join(SUFFIXES)}, "
            "or set it to embedded"
        )
    return pl.concat(tables)


def _of_both_forms(table: pl.DataFrame, kind: str, preparation: Preparation, n: int) -> pl.DataFrame:
    """The n-grams of records in the form that training documents have and in that of conversations: the same, unless a
    quality preset rewrites documents."""
    as_conversations = replace(preparation, quality=())
    prepared, _ = prepare_table(table, kind, as_conversations)
    forms = [_ngrams(prepared["id"], whole_texts(prepared, kind), n)]
    if rewrites(preparation.quality):
        documents = table.select("id", text=whole_texts(table, kind))
        prepared, _ = prepare_table(documents, DOCUMENTS, preparation)
        forms.append(_ngrams(prepared["id"], prepared["text"], n))
    return pl.concat(forms)


def _ngrams(ids: pl.Series, texts: pl.Series, n: int) -> pl.DataFrame:
    hashes, offsets = ngram_hashes(texts, n, whole=False)
    owners = np.repeat(np.arange(len(ids)), np.diff(offsets))
    return no_ngrams().vstack(pl.DataFrame({"hash": hashes, "evaluation": ids.gather(owners)}))


def no_ngrams() -> pl.DataFrame:
    """A table of what `collect` gives, without rows."""
    return pl.DataFrame(schema={"hash": pl.UInt64, "evaluation": pl.String})


def _texts(file: Path) -> Iterator[str]:
    if file.suffix == ".parquet":
        try:
            rows = pl.read_parquet(file, glob=False).iter_rows()
        except PolarsError as error:
            raise ValueError(f"{file}: not a readable Parquet file: {error}") from error
        yield from ("\n".join(_strings(list(row))) for row in rows)
        return
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8: {error.reason}; write the file as UTF-8") from error
    if file.suffix == ".txt":
        yield text
        return
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            yield "\n".join(_strings(json.loads(line))) if line.strip() else ""
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}:{number}: not JSON: {error}; each line must be one whole JSON value") from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.encode("utf-8", "replace").decode()  # half of a surrogate pair
    elif isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _strings(member)
