"""Preprocess as a whole: nothing is lost, nothing leaks, and the bytes depend on the input alone."""

import json
import random
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from pipeline.preprocess import annotate, write
from pipeline.preprocess.__main__ import main
from pipeline.preprocess.run import preprocess
from pipeline.shards import Local, verify_manifest, write_manifest
from pipeline.shards.tables import KINDS, SPLITS, columns, shard_file, write_table
from pipeline.work import WorkFolder

MAIN = Path(__file__).parents[3] / "pipeline/preprocess/__main__.py"

PARAMS: Any = SimpleNamespace(
    min_chars=3,
    max_chars=40,
    quality=["none"],
    thresholds={},
    pii=[],
    language_model="embedded",
    languages=[],
    min_language_score=0.65,
    near_duplicates=False,
    near_words=5,
    near_bands=14,
    near_rows=8,
    validation_fraction=0.2,
    test_fraction=0.2,
    contamination_words=0,
    contamination_share=0.0,
    evaluation_sets="embedded",
    weights={},
    temperature=1.0,
    max_repeats=4,
    seed=0,
)
SOURCES = ("books", "web")


def params(**changes: Any) -> Any:
    """PARAMS with some values changed."""
    return SimpleNamespace(**{**vars(PARAMS), **changes})


def write_ingested(directory: Path, seed: int = 0, own_splits: bool = False) -> Path:
    """Shards of both kinds as ingest writes them, with records to drop for every reason."""
    rng = random.Random(seed)
    directory.mkdir(parents=True)
    counts = {}
    words = ["", "ab", "abc\r", "abc\n", "e\u0301e\u0301", "x" * 41]
    for index in range(4):
        for kind in KINDS:
            rows = []
            for number in range(50):
                text = rng.choice(words) if rng.random() < 0.3 else f"text {rng.randrange(300)}"
                split = rng.choice([None, None, *SPLITS]) if own_splits else None
                messages = [{"role": "user", "content": f"{rng.randrange(30)}"}, {"role": "assistant", "content": text}]
                content = text if kind == "documents" else messages
                source, group = SOURCES[number % 2], f"group {rng.randrange(100)}"
                rows.append((f"{kind}{index}:{number}", source, group, split, content))
            name = shard_file(kind, index)
            write_table(pl.DataFrame(rows, schema=columns(kind, split=True), orient="row"), directory / name)
            counts[name] = len(rows)
    write_manifest(directory, counts, {})
    return directory


def read_clean(directory: Path) -> pl.DataFrame:
    """`id`, `group`, `kind`, `split` of every record that was written."""
    parts = [
        pl.read_parquet(file).select("id", "group", kind=pl.lit(kind), split=pl.lit(split))
        for kind in KINDS
        for split in SPLITS
        for file in sorted(directory.glob(f"{split}/{kind}-*.parquet"))
    ]
    return pl.concat(parts)


def test_workers_that_start_ahead_import_the_module_of_the_first_step() -> None:
    assert f'module="{annotate.__name__}"' in MAIN.read_text(encoding="utf-8")


def test_workers_start_ahead_for_shards_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_ingested(tmp_path / "data" / "ingested")
    (source / "quarantine.parquet").touch()
    (source / "manifest.json").unlink()
    write_manifest(source, {file.name: 1 for file in source.iterdir()}, {})
    jobs = []

    @contextmanager
    def note(launch: Any, **wanted: Any) -> Iterator[Local]:
        jobs.append(wanted["jobs"])
        yield Local(1)

    monkeypatch.setattr("pipeline.shards.executor_for", note)
    monkeypatch.setattr("pipeline.preprocess.run.preprocess", lambda *_, **__: {})
    monkeypatch.setattr("pipeline.command.report", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    some: Any = SimpleNamespace(launch=None, preprocess=None)
    main(some, some, some)
    assert jobs == [8]


@pytest.mark.parametrize("own_splits", [False, True])
def test_every_record_is_written_once_or_dropped_once(tmp_path: Path, own_splits: bool) -> None:
    source = write_ingested(tmp_path / "in", own_splits=own_splits)
    summary = preprocess(source, WorkFolder(tmp_path), PARAMS, executor=Local(1))
    manifest = verify_manifest(WorkFolder(tmp_path).out)
    kept, dropped = read_clean(WorkFolder(tmp_path).out), pl.read_parquet(WorkFolder(tmp_path).out / "dropped.parquet")
    given = [pl.read_parquet(file)["id"] for file in source.glob("*.parquet")]
    assert sorted([*kept["id"], *dropped["id"]]) == sorted(pl.concat(given))
    assert manifest["records_in"] == 400 == manifest["records_out"] + sum(manifest["dropped"].values())
    assert manifest["dropped"] == dict(dropped["reason"].value_counts().iter_rows())
    assert {"too_short", "too_long", "empty_response", "duplicate"} <= set(manifest["dropped"])
    assert ("duplicate_of_held_out" in manifest["dropped"]) == own_splits
    assert dropped.columns == ["id", "source", "kind", "group", "reason", "detail", "excerpt"]
    assert not dropped["detail"].has_nulls()
    for (split, kind), part in kept.group_by("split", "kind"):
        assert manifest["splits"][split][kind]["records"] == part.height == summary[f"{split}/{kind}"]


def test_what_is_written_is_clean_and_in_order(tmp_path: Path) -> None:
    preprocess(write_ingested(tmp_path / "in"), WorkFolder(tmp_path), PARAMS, executor=Local(1))
    seen, characters = set(), 0
    for file in sorted((WorkFolder(tmp_path).out / "train").glob("documents-*.parquet")):
        table = pl.read_parquet(file)
        assert table.schema == columns("documents", split=False)
        for text in table["text"]:
            assert text not in seen
            assert "\r" not in text
            assert "\u0301" not in text
            seen.add(text)
            characters += len(text)
        numbers = [int(name.split(":")[1]) for name in table["id"]]
        assert numbers == sorted(numbers)
    manifest = verify_manifest(WorkFolder(tmp_path).out)
    assert manifest["splits"]["train"]["documents"] == {"records": len(seen), "characters": characters}


def test_no_held_out_group_is_trained_on(tmp_path: Path) -> None:
    preprocess(write_ingested(tmp_path / "in"), WorkFolder(tmp_path), PARAMS, executor=Local(1))
    groups = {split: set(part["group"]) for (split,), part in read_clean(WorkFolder(tmp_path).out).group_by("split")}
    assert set(groups) == set(SPLITS)
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["test"] & groups["validation"]


def test_groups_with_a_shared_duplicate_go_together(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    rows = [(f"{n}", "input", f"group {n}", None, f"text {n}") for n in range(30)]
    rows += [(f"copy {n}", "input", f"group {n + 1}", None, f"text {n}") for n in range(0, 30, 2)]  # ties 0-1, 2-3, ...
    write_table(
        pl.DataFrame(rows, schema=columns("documents", split=True), orient="row"), source / "documents-00000.parquet"
    )
    write_manifest(source, {"documents-00000.parquet": len(rows)}, {})
    preprocess(source, WorkFolder(tmp_path), PARAMS, executor=Local(1))
    split_of = {group: split for _, group, _, split in read_clean(WorkFolder(tmp_path).out).iter_rows()}
    assert set(split_of.values()) == set(SPLITS)
    for n in range(0, 30, 2):
        assert split_of[f"group {n}"] == split_of[f"group {n + 1}"]


def test_bytes_depend_on_neither_workers_nor_place(tmp_path: Path) -> None:
    write_ingested(tmp_path / "one" / "in", own_splits=True)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for place, workers in (("one", 1), ("two", 2)):
        preprocess(tmp_path / place / "in", WorkFolder(tmp_path / place), PARAMS, executor=Local(workers))
    one, two = (WorkFolder(tmp_path / place).out / "manifest.json" for place in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    verify_manifest(WorkFolder(tmp_path / "two").out)


def test_running_again_replaces_all(tmp_path: Path) -> None:
    source, work = write_ingested(tmp_path / "in"), WorkFolder(tmp_path)
    preprocess(source, work, PARAMS, executor=Local(1))
    before = (work.out / "manifest.json").read_bytes()
    (work.out / "test" / "stray").write_text("stray")
    preprocess(source, work, PARAMS, executor=Local(1))
    assert (work.out / "manifest.json").read_bytes() == before
    verify_manifest(work.out)


@pytest.mark.parametrize("stopped_at", [4, 9, 20])
def test_a_stopped_run_goes_on_with_the_shards_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int
) -> None:
    source, whole, work = write_ingested(tmp_path / "in"), WorkFolder(tmp_path / "whole"), WorkFolder(tmp_path)
    preprocess(source, whole, PARAMS, executor=Local(1))
    written: list[Path] = []

    def fail_once(table: pl.DataFrame, path: Path) -> None:
        if len(written) == stopped_at:
            path.write_bytes(b"half of a fi")
            raise OSError("stopped")
        write_table(table, path)
        written.append(path)

    monkeypatch.setattr(write, "write_table", fail_once)
    with pytest.raises(OSError, match="stopped"):
        preprocess(source, work, PARAMS, executor=Local(1))
    assert not work.out.exists()
    monkeypatch.setattr(write, "write_table", lambda table, path: (written.append(path), write_table(table, path)))
    before = len(written)
    preprocess(source, work, PARAMS, executor=Local(1))
    files = verify_manifest(work.out)["files"]
    assert len(written) - before < len(files)  # not all of it again
    assert (work.out / "manifest.json").read_bytes() == (whole.out / "manifest.json").read_bytes()


def test_damaged_work_is_named_and_done_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, work = write_ingested(tmp_path / "in"), WorkFolder(tmp_path)
    preprocess(source, work, PARAMS, executor=Local(1))
    before = (work.out / "manifest.json").read_bytes()
    shutil.rmtree(work.out)
    damaged = next(work.shards.rglob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    results = (path for path in work.shards.glob("*/result") if path.parent != damaged.parents[1])
    kept = next(results)
    kept.write_bytes(kept.read_bytes()[:-1])
    preprocess(source, work, PARAMS, executor=Local(1))
    warnings = capfd.readouterr().err
    assert f"{kept} is cut short or changed" in warnings
    assert f"a file in {damaged.parent} is missing, cut short or changed" in warnings
    assert warnings.count("done again") == 2
    assert (work.out / "manifest.json").read_bytes() == before
    verify_manifest(work.out)


def test_rules_of_quality_leave_conversations_as_they_are(tmp_path: Path) -> None:
    source, written = write_ingested(tmp_path / "in"), {}
    for name, quality in (("none", ["none"]), ("all", ["gopher", "c4", "fineweb", "code"])):
        work = WorkFolder(tmp_path / name)
        preprocess(source, work, params(quality=quality), executor=Local(1))
        dropped = pl.read_parquet(work.out / "dropped.parquet").filter(pl.col("kind") == "conversations")["reason"]
        written[name] = (
            dropped.to_list(),
            read_clean(work.out).filter(pl.col("kind") == "conversations")["id"].to_list(),
        )
    assert sum(map(len, written["none"])) == 200
    assert sorted(written["all"][1]) == sorted(written["none"][1])
    assert sorted(written["all"][0]) == sorted(written["none"][0])


def write_conversations(source: Path, given: list[tuple[list[tuple[str, str]], str | None]]) -> None:
    """As ingest writes them, c:0 and so on: the turns of each, a role and what it says, and its split."""
    source.mkdir()
    rows = [
        (f"c:{number}", "input", f"g{number}", split, [{"role": role, "content": said} for role, said in turns])
        for number, (turns, split) in enumerate(given)
    ]
    table = pl.DataFrame(rows, schema=columns("conversations", split=True), orient="row")
    write_table(table, source / "conversations-00000.parquet")
    write_manifest(source, {"conversations-00000.parquet": len(rows)}, {})


def test_what_every_conversation_says_contaminates_none_but_a_copied_answer_does(tmp_path: Path) -> None:
    """As params.yaml has it: 13 words, a share of 0.2."""
    rng = random.Random(0)
    source, system = tmp_path / "in", " ".join(f"always{number}" for number in range(40))
    answers = [" ".join(f"w{rng.randrange(10**6)}" for _ in range(30)) for _ in range(60)]
    rows = []
    (tmp_path / "set.jsonl").write_text(json.dumps({"question": "What?", "answer": answers[0]}))
    copies = [f"{answers[0]} and more {number}" for number in range(12)]  # more than what is in common use
    for number, answer in enumerate([*answers, *copies]):
        turns = [("system", system), ("user", f"question {number}"), ("assistant", answer)]
        split = "test" if 0 < number < 4 else "validation" if 4 <= number < 8 else None
        rows.append((turns, split))
    write_conversations(source, rows)
    given = params(max_chars=10**6, contamination_words=13, contamination_share=0.2)
    given.evaluation_sets = str(tmp_path / "set.jsonl")
    preprocess(source, WorkFolder(tmp_path), given, executor=Local(1))
    dropped = pl.read_parquet(WorkFolder(tmp_path).out / "dropped.parquet")
    names = ["c:0", *(f"c:{number}" for number in range(60, 72))]
    assert dropped.select("id", "reason", "detail").rows() == [(name, "contaminated", "set.jsonl:1") for name in names]
    assert pl.read_parquet(WorkFolder(tmp_path).out / "contamination.parquet")["id"].to_list() == names


@pytest.mark.parametrize("twin", ["in the sets", "held out"])
def test_a_question_that_is_there_twice_is_still_one_that_may_be_copied_often(tmp_path: Path, twin: str) -> None:
    """Left aside is what more records have than 10, unless one text alone of the sets has it."""
    source, question = tmp_path / "in", " ".join(f"q{number}" for number in range(20))
    (tmp_path / "sets").mkdir()
    for name in ("a", "b") if twin == "in the sets" else ("a",):
        (tmp_path / "sets" / f"{name}.jsonl").write_text(json.dumps({"q": question, "a": "yes"}))
    rows = [([("user", f"{question} {number}"), ("assistant", "no")], None) for number in range(20)]
    rows += [([("user", f"{number} of the rest"), ("assistant", "yes")], None) for number in range(9)]
    rows += [([("user", f"{split} alone"), ("assistant", "yes")], split) for split in ("test", "validation")]
    if twin == "held out":
        rows.append(([("user", question), ("assistant", "yes")], "test"))
    write_conversations(source, rows)
    given = params(max_chars=10**6, contamination_words=13, contamination_share=0.8)  # 8 of 9 are in each
    given.evaluation_sets = str(tmp_path / "sets")
    preprocess(source, WorkFolder(tmp_path), given, executor=Local(1))
    out = WorkFolder(tmp_path).out
    dropped = pl.read_parquet(out / "dropped.parquet").filter(reason="contaminated")
    assert dropped["id"].to_list() == [f"c:{number}" for number in range(20)]
    assert pl.read_parquet(out / "common.parquet").is_empty()
    assert verify_manifest(out)["common_ngrams"] == 0


def test_what_is_left_aside_is_listed(tmp_path: Path) -> None:
    """By evaluation record, those first of which most training records have an n-gram."""
    source, rng = tmp_path / "in", random.Random(0)
    system = " ".join(f"always{number}" for number in range(20))
    opening = " ".join(f"often{number}" for number in range(15))
    rows = []
    for number in range(60):
        said = " ".join(f"w{rng.randrange(10**6)}" for _ in range(20))
        user = f"{opening} {said}" if number % 3 == 0 else said
        split = {0: "test", 1: "validation"}.get(number)
        rows.append(([("system", system), ("user", user), ("assistant", f"a{number}")], split))
    write_conversations(source, rows)
    given = params(max_chars=10**6, contamination_words=13, contamination_share=0.2)
    preprocess(source, WorkFolder(tmp_path), given, executor=Local(1))
    out = WorkFolder(tmp_path).out
    listed = pl.read_parquet(out / "common.parquet")
    # the 8 of the prompt are put down to the shorter record, c:1; to c:0 the 3 of the opening and the 12 on their seam
    assert sorted(listed.select("evaluation", "ngrams", "records").rows()) == [("c:0", 15, 19), ("c:1", 8, 58)]
    assert listed["records"].to_list() == [58, 19]
    assert listed["ngram"][0].split() in [system.split()[start : start + 13] for start in range(8)]
    assert listed["ngram"][1] in f"{system} {opening}"
    assert verify_manifest(out)["common_ngrams"] == 23


def test_the_seam_of_a_common_system_prompt_contaminates_none(tmp_path: Path) -> None:
    """Of a short conversation little is left but the n-grams that end the prompt and begin the question."""
    source, system = tmp_path / "in", " ".join(f"always{number}" for number in range(32))
    rows = []
    for number in range(480):
        question = " ".join(f"lead{number % 60}x{word}" for word in range(8))
        turns = [("system", system), ("user", f"{question} w{number}"), ("assistant", f"a{number} b{number}")]
        rows.append((turns, None))
    write_conversations(source, rows)
    given = params(max_chars=10**6, contamination_words=13, contamination_share=0.2)
    preprocess(source, WorkFolder(tmp_path), given, executor=Local(1))
    assert pl.read_parquet(WorkFolder(tmp_path).out / "contamination.parquet").height > 100  # reported all the same
    assert pl.read_parquet(WorkFolder(tmp_path).out / "dropped.parquet").is_empty()


@pytest.mark.parametrize("contamination_words", [0, 3])
def test_when_every_record_is_dropped_the_error_says_so(tmp_path: Path, contamination_words: int) -> None:
    wanted = params(min_chars=1000, max_chars=0, contamination_words=contamination_words)
    with pytest.raises(ValueError, match="every record was dropped"):
        preprocess(write_ingested(tmp_path / "in"), WorkFolder(tmp_path), wanted, executor=Local(1))


def test_a_language_model_that_is_cut_short_is_an_error_before_any_work(tmp_path: Path) -> None:
    model = tmp_path / "lid.bin"
    model.write_bytes(struct.pack("<ii", 793712314, 12))
    with pytest.raises(ValueError, match=r"lid\.bin: not a fastText model, or cut short"):
        preprocess(
            write_ingested(tmp_path / "in"),
            WorkFolder(tmp_path),
            params(language_model=str(model)),
            executor=Local(1),
        )


def test_input_that_is_not_whole_is_an_error(tmp_path: Path) -> None:
    source = write_ingested(tmp_path / "in")
    (source / "documents-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"documents-00001\.parquet is missing"):
        preprocess(source, WorkFolder(tmp_path), PARAMS, executor=Local(1))
    (source / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"manifest\.json is missing"):
        preprocess(source, WorkFolder(tmp_path), PARAMS, executor=Local(1))
    assert not (WorkFolder(tmp_path).out).exists()
