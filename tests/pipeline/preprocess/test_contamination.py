"""Decontamination against a search for every n-gram in every text."""

import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.preprocess.contamination.evaluation import Collect, choose, collect, file_ngrams
from pipeline.preprocess.contamination.lookup import write_lookup
from pipeline.preprocess.contamination.scan import Scan, scan
from pipeline.preprocess.prepare import Preparation, prepare, whole_texts
from pipeline.shards.tables import columns, write_table

N = 3
AS_IS = Preparation((), ())


def write_shard(path: Path, texts: list[str]) -> None:
    rows = [(f"id{number}", "input", f"g{number}", None, text) for number, text in enumerate(texts)]
    write_table(pl.DataFrame(rows, schema=columns("documents", split=True), orient="row"), path)


def grams(text: str) -> list[str]:
    tokens = text.lower().replace(",", " ").split()
    return [" ".join(tokens[start : start + N]) for start in range(len(tokens) - N + 1)]


@pytest.mark.parametrize("seed", range(10))
def test_hits_against_a_search_of_all(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    texts = [rng.choice([" ", ", "]).join(rng.choices("aBcDeF", k=rng.randrange(9))) for _ in range(40)]
    write_shard(tmp_path / "shard.parquet", texts)
    held_out = tuple(sorted(rng.sample(range(40), rng.choice([0, 1, 5]))))
    train = tuple(number for number in range(40) if number not in held_out)

    def chosen(rows: tuple[int, ...]) -> str:
        return choose(np.isin(np.arange(40), rows))

    collected = collect(Collect(tmp_path / "shard.parquet", "documents", AS_IS, chosen(held_out), N))
    write_lookup(collected, tmp_path / "evaluation")
    hits = scan(Scan(tmp_path / "shard.parquet", "documents", AS_IS, chosen(train), tmp_path / "evaluation", N))
    owner: dict[str, str] = {}
    for number in held_out:
        for gram in grams(texts[number]):
            owner.setdefault(gram, f"id{number}")
    expected = []
    for number in train:
        own = [gram for gram in grams(texts[number]) if gram in owner]
        for evaluation in sorted({owner[gram] for gram in own}):
            of_evaluation = [gram for gram in own if owner[gram] == evaluation]
            expected.append((number, f"id{number}", evaluation, len(of_evaluation), of_evaluation[0]))
    assert hits.rows() == expected


ACCENTED = "été garçon naïve coûté déjà"


@pytest.mark.parametrize("kind", ["documents", "conversations"])
@pytest.mark.parametrize(
    ("text", "preparation"),
    [
        (unicodedata.normalize("NFD", ACCENTED), AS_IS),
        (ACCENTED.encode().decode("latin-1"), AS_IS),
        ("o\0ne t\0wo th\0ree", AS_IS),
        ("one\rtwo\rthree", AS_IS),
        ("write to ann@corp.com or bob@corp.com", Preparation((), ("email",))),
        ("They came to the\nYes.\nThe house was big [1] and red.\nBut it was", Preparation(("c4",), ())),
    ],
)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_text_that_preparing_changes_is_found_by_its_own_bytes(
    tmp_path: Path, kind: str, text: str, preparation: Preparation, suffix: str
) -> None:
    content = text if kind == "documents" else [{"role": "user", "content": text}, {"role": "assistant", "content": ""}]
    rows = [("id0", "input", "g0", None, content)]
    write_table(pl.DataFrame(rows, schema=columns(kind, split=True), orient="row"), tmp_path / "shard.parquet")
    file = (tmp_path / "set").with_suffix(suffix)
    if suffix == ".parquet":
        pl.DataFrame({"q": [text]}).write_parquet(file)
    else:
        file.write_bytes(text.encode() if suffix == ".txt" else json.dumps({"q": text}).encode())
    write_lookup(file_ngrams(file, preparation, N), tmp_path / "evaluation")
    hits = scan(
        Scan(
            tmp_path / "shard.parquet",
            kind,
            preparation,
            choose(np.ones(1, dtype=bool)),
            tmp_path / "evaluation",
            N,
        )
    )
    table, _ = prepare(tmp_path / "shard.parquet", kind, preparation)
    words = len(grams(whole_texts(table, kind)[0].replace(".", " ").replace("@", " ").replace("[1]", " 1 ")))
    assert hits.select("id", "evaluation", "ngrams").rows() == [("id0", f"{file.name}:1", words)]
    assert words > 0


SHORT_LINES = "The house was big.\nYes.\nIt was also [1] red.\nNo.\nThen came the dog."


@pytest.mark.parametrize("training", ["documents", "conversations"])
@pytest.mark.parametrize("held_out", ["documents", "conversations"])
def test_a_held_out_text_is_found_in_either_kind_of_record(tmp_path: Path, held_out: str, training: str) -> None:
    """No line that c4 keeps has as many words as the n-gram, so that one form of the text is not enough."""
    c4, every, n = Preparation(("c4",), ()), choose(np.ones(1, dtype=bool)), 6
    for name, kind in (("held_out", held_out), ("training", training)):
        turns = [{"role": "user", "content": SHORT_LINES}, {"role": "assistant", "content": "Thanks"}]
        row = (name, "input", "g", None, SHORT_LINES if kind == "documents" else turns)
        write_table(pl.DataFrame([row], schema=columns(kind, split=True), orient="row"), tmp_path / f"{name}.parquet")
    collected = collect(Collect(tmp_path / "held_out.parquet", held_out, c4, every, n))
    write_lookup(collected, tmp_path / "evaluation")
    (hit,) = scan(Scan(tmp_path / "training.parquet", training, c4, every, tmp_path / "evaluation", n)).rows()
    table, _ = prepare(tmp_path / "training.parquet", training, c4)
    words = whole_texts(table, training)[0].replace(".", " ").replace("[1]", " 1 ").split()
    in_common = len(words) - n + 1 - (training == "conversations" and held_out == "documents")  # the answer
    assert hit[1:4] == ("training", "held_out", in_common)


def test_files_of_every_format(tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    folder.mkdir()
    lines = [{"q": "one two three", "choices": ["four five six", {"deep": "seven"}], "n": 3}, {}, "eight nine ten"]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    pl.DataFrame({"n": [1, 2], "q": ["x y z", "p q"]}).write_parquet(folder / "b.parquet")
    (folder / "c.txt").write_text("k l m n")
    (folder / "README.md").write_text("not one of them at all")
    found = file_ngrams(folder, AS_IS, N)["evaluation"].value_counts().sort("evaluation").rows()
    assert found == [("a.jsonl:1", 5), ("a.jsonl:3", 1), ("b.parquet:1", 1), ("c.txt:1", 2)]
    assert file_ngrams(folder / "c.txt", AS_IS, N)["evaluation"].to_list() == ["c.txt:1"] * 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"x", r"evaluation_sets: .*a\.csv: unknown format '\.csv'"),
        ("a.jsonl", b"{}\n{", r"a\.jsonl:2: not JSON"),
        ("a.txt", b"\xff", r"a\.txt: not UTF-8"),
        ("a.parquet", b"PAR1", r"a\.parquet: not a readable Parquet file"),
    ],
)
def test_a_malformed_file_is_an_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        file_ngrams(tmp_path, AS_IS, N)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"q": "one two three"}')
    assert file_ngrams(tmp_path, AS_IS, N)["evaluation"].to_list() == ["a.jsonl:1"]


@pytest.mark.parametrize(
    "files", [{}, {"a.jsonl": "", "b.txt": " \n"}, {"README.md": "about"}, {"a.jsonl": '{"n": 1}'}]
)
def test_sets_without_text_are_an_error(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"preprocess\.evaluation_sets: .*: there is no text in it"):
        file_ngrams(tmp_path, AS_IS, N)
