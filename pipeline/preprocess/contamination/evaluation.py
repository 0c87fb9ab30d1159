"""The n-grams of the evaluation sets: of the held-out records, and of files of the user's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from pipeline.arrays import I64, Bools
from pipeline.preprocess.contamination.anchors import anchors
from pipeline.preprocess.contamination.lookup import Ngrams, count_short, write_part
from pipeline.preprocess.hashes import string_hashes
from pipeline.preprocess.ngrams import ngrams_of_words
from pipeline.preprocess.prepare import Preparation, prepare_table, whole_texts
from pipeline.preprocess.quality import rewrites
from pipeline.preprocess.words import word_hashes
from pipeline.shards.tables import DOCUMENTS, read_shard
from pipeline.sources.walking import look, walk

SUFFIXES = (".jsonl", ".parquet", ".txt")


@dataclass(frozen=True)
class Collect:
    """Write the n-grams of `n` words of some records of a shard; `rows` is what `choose` gave."""

    path: Path
    kind: str
    preparation: Preparation
    rows: str
    n: int
    folder: Path

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        return self.path.name


def collect(job: Collect) -> None:
    """Write them as a part of the lookup."""
    table = read_shard(job.path)[chosen(job.rows)]
    forms = _both_forms(table, job.kind, job.preparation)
    none = np.zeros(len(forms) * table.height, dtype=bool)
    write_part(job.folder, pl.concat([table["id"]] * len(forms)), _ngrams(forms, job.n), none)


def choose(is_chosen: np.ndarray[Any, Any]) -> str:
    """Some records of a shard, from a bool for each, as a job holds them: a bit for each, in hexadecimal digits."""
    return np.packbits(is_chosen).tobytes().hex()


def chosen(rows: str) -> I64:
    """The places of the records that `choose` was given."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(bytes.fromhex(rows), dtype=np.uint8)))


def collect_files(path: Path, preparation: Preparation, n: int, folder: Path) -> list[Path]:
    """As `collect`, of a file or of the files of a directory, each a part in `folder`; an id is `<file>:<line or row>`.

    A line of JSON lines or a row of Parquet is one record, whose text is all strings in it, in their order; a file
    of plain text is one. Texts are prepared as those of training are. Of records with the same text, the first counts
    for all where it is told how many have an n-gram.

    Raises:
        ValueError: a file is of another format, malformed or empty, or is none; there is no text in any.
    """
    parts, texts_found, short, seen = list[Path](), 0, 0, set[int]()
    for name, file in _files(path).items():
        numbered = [(f"{name}:{number}", text) for number, text in enumerate(_texts(file), start=1) if text.strip()]
        records = pl.DataFrame(numbered, schema={"id": pl.String, "text": pl.String}, orient="row")
        parts.append(folder / str(len(parts)))
        parts[-1].mkdir(parents=True)
        forms = _both_forms(records, DOCUMENTS, preparation)
        is_first = np.tile(_first_of_each(forms[0], seen), len(forms))
        write_part(parts[-1], pl.concat([records["id"]] * len(forms)), _ngrams(forms, n), is_first)
        texts_found, short = texts_found + len(numbered), short + count_short(parts[-1])
    if not texts_found:
        raise ValueError(
            f"preprocess.evaluation_sets: {path}: there is no text in it; bring files of {', '.join(SUFFIXES)}, "
            "or set it to embedded"
        )
    if short:
        print(
            f"warning: preprocess.evaluation_sets: {path}: {short} of {texts_found} texts have fewer words than "
            f"preprocess.contamination_words ({n}), and nothing is looked for of them; lower it to look for them",
            file=sys.stderr,
        )
    return parts


def _files(path: Path) -> dict[str, Path]:
    """The files of the sets by their names, in the order of these; hidden ones are left aside, as ingest does."""
    if path.is_dir():
        found = {each.name: (path / each.name, each.fault) for each in walk(path) if each.name != "README.md"}
    else:
        found = {path.name: (path, look(path, path.name).fault)}
    for file, fault in found.values():
        if fault:
            raise ValueError(f"preprocess.evaluation_sets: {file} {fault.message}")
        if file.suffix.lower() not in SUFFIXES:
            raise ValueError(
                f"preprocess.evaluation_sets: {file}: unknown format {file.suffix!r}; known are {', '.join(SUFFIXES)}"
            )
    return {name: file for name, (file, _) in found.items()}


def _both_forms(table: pl.DataFrame, kind: str, preparation: Preparation) -> list[pl.Series]:
    """The texts of records in the form that conversations have and in that of training documents: the same, unless a
    quality preset rewrites documents, and then given once.

    Each form is looked for as a record of its own, so that whoever has all of one has all of it.
    """
    as_conversations = replace(preparation, quality=())
    forms = [whole_texts(prepare_table(table, kind, as_conversations)[0], kind)]
    if rewrites(preparation.quality):
        documents = table.select("id", text=whole_texts(table, kind))
        forms.append(prepare_table(documents, DOCUMENTS, preparation)[0]["text"])
    return forms


def _ngrams(forms: list[pl.Series], n: int) -> Ngrams:
    """Of all forms of some records, one form after the other."""
    words, lengths = word_hashes(pl.concat(forms))
    hashes, offsets = ngrams_of_words(words, lengths, n)
    return Ngrams(hashes, np.repeat(np.arange(len(lengths)), np.diff(offsets)), anchors(words, n))


def _first_of_each(texts: pl.Series, seen: set[int]) -> Bools:
    """Which of the texts are not among those `seen`, by their hashes, nor before them; they are added."""
    is_new = []
    for key in string_hashes(texts).tolist():
        is_new.append(key not in seen)
        seen.add(key)
    return np.array(is_new, dtype=bool)


def _texts(file: Path) -> Iterator[str]:
    kind = file.suffix.lower()
    if kind == ".parquet":
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
    if kind == ".txt":
        yield text
        return
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            yield "\n".join(_strings(_DECODER.decode(line.strip()))) if line.strip() else ""
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}:{number}: not JSON: {error}; each line must be one whole JSON value") from error


_DECODER = json.JSONDecoder(object_pairs_hook=lambda pairs: [value for _, value in pairs], parse_int=float)
"""Of objects the values, of a key that stands twice both; numbers, of however many digits, are no text."""


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.encode("utf-8", "replace").decode()  # half of a surrogate pair
    elif isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _strings(member)
