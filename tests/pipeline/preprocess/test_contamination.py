"""Decontamination against a search for every n-gram in every text."""

import json
import os
import random
import resource
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest

from pipeline.preprocess.contamination import lookup
from pipeline.preprocess.contamination.anchors import bitmap, width_for
from pipeline.preprocess.contamination.common import count_shared, set_aside
from pipeline.preprocess.contamination.evaluation import Collect, choose, collect, collect_files
from pipeline.preprocess.contamination.lookup import (
    BITMAP,
    HASHES,
    OWNERS,
    Ngrams,
    count_records,
    look_up,
    merge,
    read_ids,
    read_owners,
    read_records,
    write_part,
)
from pipeline.preprocess.contamination.scan import FOUND, Scan, scan
from pipeline.preprocess.contamination.weigh import SHARES, Weigh, pairs, weigh
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


def owners(parts: list[Path]) -> Counter[str]:
    """How many n-grams each record has."""
    found: Counter[str] = Counter()
    for part in parts:
        found.update(read_ids(part, np.fromfile(part / OWNERS, dtype="<u4")))
    return found


def hits_of(job: Scan) -> pl.DataFrame:
    """`row`, `id`, `evaluation`, `share`, `ngrams` and `ngram` of the hits of one shard."""
    job.folder.mkdir()
    scan(job)
    found, shared, common = (job.folder / name for name in (FOUND, "shared.npy", "common"))
    count_shared(shared, job.evaluation, [found])
    set_aside(common, job.evaluation, shared)
    count = weigh(Weigh("shard", found, job.evaluation, common, job.n, job.folder))
    rows = pl.read_parquet(job.folder / SHARES).select("row")
    assert rows.height == count
    table, _ = prepare(job.path, job.kind, job.preparation)
    return pl.concat([rows, pairs(table, job.kind, job.folder / SHARES, job.n)], how="horizontal")


@pytest.mark.parametrize("of_sets", [False, True])
@pytest.mark.parametrize("common", [2, 10])
@pytest.mark.parametrize("seed", range(10))
def test_hits_against_a_search_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, common: int, of_sets: bool
) -> None:
    monkeypatch.setattr("pipeline.preprocess.contamination.common.OFTEN", common)
    rng = random.Random(seed)
    texts = [rng.choice([" ", ", "]).join(rng.choices("aBcDeF", k=rng.randrange(9))) for _ in range(40)]
    write_shard(tmp_path / "shard.parquet", texts)
    held_out = tuple(sorted(rng.sample(range(40), rng.choice([0, 1, 5]))))
    train = tuple(number for number in range(40) if number not in held_out)

    def chosen(rows: tuple[int, ...]) -> str:
        return choose(np.isin(np.arange(40), rows))

    (tmp_path / "part").mkdir()
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "a.jsonl").write_text("".join(json.dumps(texts[number]) + "\n" for number in held_out))
    if of_sets and any(texts[number].strip() for number in held_out):
        parts = collect_files(tmp_path / "sets", AS_IS, N, tmp_path / "parts")
    else:
        parts = [tmp_path / "part"]
        collect(Collect(tmp_path / "shard.parquet", "documents", AS_IS, chosen(held_out), N, *parts))
    merge(parts, tmp_path / "evaluation")
    job = Scan(
        tmp_path / "shard.parquet", "documents", AS_IS, chosen(train), tmp_path / "evaluation", N, tmp_path / "found"
    )
    owner: dict[str, str] = {}
    for number in sorted(held_out, key=lambda number: len(set(grams(texts[number])))):
        for gram in grams(texts[number]):
            owner.setdefault(gram, f"a.jsonl:{held_out.index(number) + 1}" if of_sets else f"id{number}")
    used = Counter(gram for number in train for gram in set(grams(texts[number])) if gram in owner)
    held = Counter(gram for number in held_out for gram in set(grams(texts[number])))
    rare = {gram for gram in owner if used[gram] <= common or (of_sets and held[gram] == 1)}
    owned = Counter(owner[gram] for gram in rare)
    names = {number: f"a.jsonl:{place}" if of_sets else f"id{number}" for place, number in enumerate(held_out, start=1)}
    every = {names[number]: len(set(grams(texts[number]))) for number in held_out}
    common_use = Counter(owner[gram] for gram in owner if gram not in rare)
    expected = []
    for number in train:
        own = [gram for gram in grams(texts[number]) if gram in rare]
        for evaluation in sorted({owner[gram] for gram in own}):
            of_evaluation = [gram for gram in own if owner[gram] == evaluation]
            has, left = len(set(of_evaluation)), owned[evaluation]
            if left == every[evaluation]:
                share = has / left
            elif has == every[evaluation] - common_use[evaluation]:
                share = 1.0
            else:
                share = max(0, has - (N - 1)) / max(1, left - (N - 1))
            expected.append((number, f"id{number}", evaluation, share, len(of_evaluation), of_evaluation[0]))
    assert hits_of(job).rows() == expected


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
    merge(collect_files(file, preparation, N, tmp_path / "parts"), tmp_path / "evaluation")
    hits = hits_of(
        Scan(
            tmp_path / "shard.parquet",
            kind,
            preparation,
            choose(np.ones(1, dtype=bool)),
            tmp_path / "evaluation",
            N,
            tmp_path / "found",
        )
    )
    table, _ = prepare(tmp_path / "shard.parquet", kind, preparation)
    words = len(grams(whole_texts(table, kind)[0].replace(".", " ").replace("@", " ").replace("[1]", " 1 ")))
    assert hits.select("id", "evaluation", "share", "ngrams").rows() == [("id0", f"{file.name}:1", 1.0, words)]
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
    (tmp_path / "part").mkdir()
    collect(Collect(tmp_path / "held_out.parquet", held_out, c4, every, n, tmp_path / "part"))
    merge([tmp_path / "part"], tmp_path / "evaluation")
    job = Scan(tmp_path / "training.parquet", training, c4, every, tmp_path / "evaluation", n, tmp_path / "found")
    (hit,) = hits_of(job).rows()
    table, _ = prepare(tmp_path / "training.parquet", training, c4)
    words = whole_texts(table, training)[0].replace(".", " ").replace("[1]", " 1 ").split()
    in_common = len(words) - n + 1 - (training == "conversations" and held_out == "documents")  # the answer
    assert hit[1:3] == ("training", "held_out")
    assert hit[4] == in_common
    if training == held_out or training == "conversations":
        assert hit[3] == 1  # all of the form that it can hold


def test_files_of_every_format(tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    folder.mkdir()
    lines = [{"q": "one two three", "choices": ["four five six", {"deep": "seven"}], "n": 3}, {}, "eight nine ten"]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    pl.DataFrame({"n": [1, 2], "q": ["x y z", "p q"]}).write_parquet(folder / "b.parquet")
    (folder / "c.txt").write_text("k l m n")
    (folder / "README.md").write_text("not one of them at all")
    found = owners(collect_files(folder, AS_IS, N, tmp_path / "parts"))
    assert found == Counter({"a.jsonl:1": 5, "a.jsonl:3": 1, "b.parquet:1": 1, "c.txt:1": 2})
    assert owners(collect_files(folder / "c.txt", AS_IS, N, tmp_path / "part")) == Counter({"c.txt:1": 2})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"x", r"evaluation_sets: .*a\.csv: unknown format '\.csv'"),
        ("a.jsonl", b"{}\n{", r"a\.jsonl:2: not JSON"),
        ("a.txt", b"\xff", r"a\.txt: not UTF-8"),
        ("a.parquet", b"PAR1", r"a\.parquet: not a readable Parquet file"),
        ("a.jsonl", b"", r"evaluation_sets: .*a\.jsonl is empty: fill it or take it away"),
    ],
)
def test_a_malformed_file_is_an_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        collect_files(tmp_path, AS_IS, N, tmp_path / "parts")


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two three")
    link = tmp_path / "b.jsonl"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"evaluation_sets: .*b\.jsonl is a broken link"):
        collect_files(tmp_path, AS_IS, N, tmp_path / "parts")
    link.unlink()
    os.mkfifo(link)
    with pytest.raises(ValueError, match=r"evaluation_sets: .*b\.jsonl is neither a file nor a folder"):
        collect_files(tmp_path, AS_IS, N, tmp_path / "parts")


def test_hidden_files_and_folders_are_left_aside(tmp_path: Path) -> None:
    (tmp_path / "sets" / ".git").mkdir(parents=True)
    for name in ("a.TXT", ".b.txt", ".git/c.txt"):
        (tmp_path / "sets" / name).write_text("one two three")
    assert owners(collect_files(tmp_path / "sets", AS_IS, N, tmp_path / "parts")) == Counter({"a.TXT:1": 1})


def test_nothing_of_a_line_is_lost(tmp_path: Path) -> None:
    """Both values of a key that stands twice; a number of more digits than Python reads is one."""
    (tmp_path / "a.jsonl").write_text('{"q": "one two three", "q": "four", "n": ' + 5001 * "9" + "}")
    assert owners(collect_files(tmp_path, AS_IS, N, tmp_path / "parts")) == Counter({"a.jsonl:1": 2})


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"q": "one two three"}')
    assert owners(collect_files(tmp_path, AS_IS, N, tmp_path / "parts")) == Counter({"a.jsonl:1": 1})


@pytest.mark.parametrize(
    "files", [{}, {"a.jsonl": "\n", "b.txt": " \n"}, {"README.md": "about"}, {"a.jsonl": '{"n": 1}'}]
)
def test_sets_without_text_are_an_error(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"preprocess\.evaluation_sets: .*: there is no text in it"):
        collect_files(tmp_path, AS_IS, N, tmp_path / "parts")


def test_more_parts_are_merged_than_files_may_be_open(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    may_be_open = 128 + 2 * psutil.Process().num_fds()  # what tests before have left open takes of its half, too
    parts = [tmp_path / str(number) for number in range(may_be_open + 22)]
    for number, part in enumerate(parts):
        part.mkdir()
        one = np.array([number], dtype=np.uint64)
        write_part(part, pl.Series([f"{number}"]), Ngrams(one, np.zeros(1, dtype=int), one), np.zeros(1, dtype=bool))
    resource.setrlimit(resource.RLIMIT_NOFILE, (may_be_open, hard))
    try:
        merge(parts, tmp_path / "all")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert np.fromfile(tmp_path / "all" / HASHES, dtype="<u8").tolist() == list(range(len(parts)))


@pytest.mark.parametrize("at_a_time", [1, 7, 10**6])
@pytest.mark.parametrize("sizes", [[], [0], [40, 0, 1, 300], [5] * 60])
def test_merged_range_by_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(lookup, "AT_A_TIME", at_a_time)
    rng = np.random.default_rng(len(sizes))
    alike = np.uint64(5 << 60) + np.arange(9, dtype=np.uint64)  # in all but their last bits
    values = np.concatenate(
        [rng.integers(2**64, size=50, dtype=np.uint64), alike, np.array([0, 2**63, 2**64 - 1], "u8")]
    )
    parts, expected, has = (
        [],
        dict[int, str](),
        {f"{n}:{row}": set[int]() for n in range(len(sizes)) for row in range(9)},
    )
    anchors = np.empty(0, dtype=np.uint64)
    for number, size in enumerate(sizes):
        hashes, rows = rng.choice(values, size), rng.integers(9, size=size)
        parts.append(tmp_path / str(number))
        parts[-1].mkdir()
        ids, own = pl.Series([f"{number}:{row}" for row in range(9)]), np.sort(rng.choice(values, size))
        anchors = np.append(anchors, own)
        write_part(parts[-1], ids, Ngrams(hashes, rows, own), np.zeros(9, dtype=bool))
        for value, row in zip(hashes.tolist(), rows.tolist(), strict=True):
            has.setdefault(f"{number}:{row}", set()).add(value)
    for name in sorted(has, key=lambda name: len(has[name])):  # of as many, that of the first part and row
        for value in has[name]:
            expected.setdefault(value, name)
    merge(parts, tmp_path / "all")
    at_once = bitmap(anchors, width_for(len(anchors)), 0, 2**64)
    assert (tmp_path / "all" / BITMAP).read_bytes() == at_once.tobytes()
    assert np.fromfile(tmp_path / "all" / HASHES, dtype="<u8").tolist() == sorted(expected)
    places, ngrams = look_up(tmp_path / "all", np.append(values, np.uint64(12345)))
    every = np.arange(count_records(tmp_path / "all"))
    records = read_records(tmp_path / "all", every).with_columns(evaluation=read_ids(tmp_path / "all", every))
    owner = read_ids(tmp_path / "all", read_owners(tmp_path / "all", ngrams))
    assert dict(zip(values[places].tolist(), owner.to_list(), strict=True)) == expected
    assert {name: count for name, count in records.select("evaluation", "owned").iter_rows() if count} == Counter(
        expected.values()
    )
    assert {name: count for name, count in records.select("evaluation", "all").iter_rows() if count} == {
        name: len(values) for name, values in has.items() if values
    }
