"""Near duplicates, decontamination and mixing in the stage as a whole."""

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import networkx as nx
import polars as pl
import pytest

from pipeline.preprocess.near.minhash import MinHash, band_names
from pipeline.preprocess.run import preprocess
from pipeline.shards import Local, verify_manifest, write_manifest
from pipeline.shards.tables import KINDS, SPLITS, columns, shard_file, write_table
from pipeline.work import WorkFolder
from tests.pipeline.preprocess.test_preprocess import params

PARAMS: Any = params(
    max_chars=10_000,
    near_duplicates=True,
    near_words=3,
    near_bands=5,
    near_rows=3,
    contamination_words=6,
    weights={"web": 2.5, "books": 0.5},
)


def write_ingested(directory: Path, seed: int = 0) -> dict[str, tuple[str, str]]:
    """Shards of documents of three sources with changed copies; the kind and text of each id."""
    rng = random.Random(seed)
    directory.mkdir(parents=True)
    texts: list[str] = []
    given, counts = {}, {}
    for index in range(3):
        for kind in KINDS:
            rows = []
            for number in range(60):
                if texts and rng.random() < 0.4:
                    tokens = rng.choice(texts).split()
                    tokens[rng.randrange(len(tokens))] = rng.choice(tokens)
                    tokens = tokens[rng.randrange(3) :] if len(tokens) > 10 else tokens
                else:
                    tokens = [str(rng.randrange(400)) for _ in range(rng.randrange(8, 60))]
                texts.append(" ".join(tokens))
                name = f"{kind}{index}:{number}"
                messages = [{"role": "user", "content": f"{number}"}, {"role": "assistant", "content": texts[-1]}]
                content = texts[-1] if kind == "documents" else messages
                given[name] = (kind, texts[-1] if kind == "documents" else f"{number}\n\n{texts[-1]}")
                rows.append((name, rng.choice(["books", "code", "web"]), f"g{name}", None, content))
            file = shard_file(kind, index)
            write_table(pl.DataFrame(rows, schema=columns(kind, split=True), orient="row"), directory / file)
            counts[file] = len(rows)
    write_manifest(directory, counts, {})
    return given


def read_written(out: Path) -> list[tuple[str, str, str, str]]:
    """`kind`, `split`, `id`, `source` of every record that was written, in the order of the files."""
    return [
        (kind, split, *row)
        for kind in KINDS
        for split in SPLITS
        for file in sorted(out.glob(f"{split}/{kind}-*.parquet"))
        for row in pl.read_parquet(file).select("id", "source").iter_rows()
    ]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[str, str]], dict[str, float]]:
    place = tmp_path_factory.mktemp("whole")
    given = write_ingested(place / "in")
    summary = preprocess(place / "in", WorkFolder(place), PARAMS, executor=Local(1))
    return place, given, summary


def test_the_counts_balance(done: Any) -> None:
    place, given, _ = done
    out = WorkFolder(place).out
    manifest = verify_manifest(out)
    written, dropped = read_written(out), pl.read_parquet(out / "dropped.parquet")
    assert {"duplicate", "near_duplicate", "contaminated", "mixed_out"} <= set(manifest["dropped"])
    repeated = sum(manifest["repeated"].values())
    assert repeated > 0
    assert manifest["records_in"] + repeated == manifest["records_out"] + sum(manifest["dropped"].values())
    assert manifest["records_in"] == len(given)
    assert manifest["records_out"] == len(written) == len({name for _, _, name, _ in written})
    firsts = [name for _, _, name, _ in written if "#" not in name]
    assert sorted([*firsts, *dropped["id"]]) == sorted(given)
    assert not dropped["detail"].has_nulls()
    for _, split, name, _ in written:
        first, _, number = name.partition("#")
        assert not number or (split == "train" and first in firsts and 2 <= int(number) <= 4)
    assert all(given[name][1][:200] == text for name, text in dropped.select("id", "excerpt").iter_rows())


def test_of_each_cluster_of_bands_one_stays_unless_it_is_dropped_later(done: Any) -> None:
    place, given, _ = done
    dropped = {
        name: (reason, detail)
        for name, reason, detail in pl.read_parquet(WorkFolder(place).out / "dropped.parquet")
        .select("id", "reason", "detail")
        .iter_rows()
    }
    graph = nx.Graph()
    order = {name: place for place, name in enumerate(given)}
    for kind in KINDS:
        names = [name for name in given if given[name][0] == kind]
        texts = pl.Series([given[name][1] for name in names])
        high, low, rows = band_names(texts, kind, MinHash(words=3, bands=5, rows=3))
        members: dict[tuple[int, int], list[str]] = {}
        for half, other, row in zip(high.tolist(), low.tolist(), rows.tolist(), strict=True):
            members.setdefault((half, other), []).append(names[row])
        for own in members.values():
            nx.add_path(graph, own) if len(own) > 1 else graph.add_nodes_from(own)
    sizes: Counter[int] = Counter()
    for cluster in nx.connected_components(graph):
        first = min(cluster, key=lambda name: order[name])
        assert dropped.get(first, ("none", ""))[0] not in ("duplicate", "near_duplicate")
        for name in cluster - {first}:
            reason, detail = dropped[name]
            assert reason in ("duplicate", "near_duplicate")
            assert detail == first or reason == "duplicate"
        sizes[len(cluster) - sum(dropped.get(name, ("", ""))[0] == "duplicate" for name in cluster)] += 1
    table = pl.read_csv(WorkFolder(place).out / "statistics" / "clusters.csv").filter(duplicates="near")
    assert dict(table.select("records", "clusters").iter_rows()) == {s: n for s, n in sizes.items() if s > 1}


def test_no_training_record_shares_an_ngram_with_a_held_out_one(done: Any) -> None:
    place, given, _ = done
    grams: dict[str, set[str]] = {"train": set(), "held out": set()}
    for _, split, name, _ in read_written(WorkFolder(place).out):
        tokens = given[name.partition("#")[0]][1].split()
        own = {" ".join(tokens[start : start + 6]) for start in range(len(tokens) - 5)}
        grams["train" if split == "train" else "held out"] |= own
    assert not grams["train"] & grams["held out"]
    hits = pl.read_parquet(WorkFolder(place).out / "contamination.parquet")
    assert hits.columns == ["id", "evaluation", "share", "ngrams", "ngram"]
    for name, evaluation, share, count, ngram in hits.iter_rows():
        assert ngram in given[name][1]
        assert ngram in given[evaluation][1]
        assert 0 <= share <= 1
        assert count >= 1


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_record_is_dropped_for_its_share_of_an_evaluation_record(done: Any, tmp_path: Path, share: float) -> None:
    place, _, _ = done
    work = WorkFolder(tmp_path, shards=WorkFolder(place).shards)
    changed = params(**{**vars(PARAMS), "contamination_share": share, "weights": {}})
    preprocess(place / "in", work, changed, executor=Local(1))
    dropped = pl.read_parquet(work.out / "dropped.parquet").filter(reason="contaminated")
    hits, before = (pl.read_parquet(WorkFolder(at).out / "contamination.parquet") for at in (tmp_path, place))
    assert hits.equals(before)  # what is not dropped is reported, too
    worst = {(name, evaluation) for name, evaluation, own, *_ in hits.iter_rows() if own >= share}
    assert {name for name, _ in worst} == set(dropped["id"]) != set(hits["id"])
    assert set(dropped.select("id", "detail").iter_rows()) <= worst


def test_statistics_agree_with_what_was_written(done: Any) -> None:
    place, _, summary = done
    out = WorkFolder(place).out
    written = Counter((kind, source, split) for kind, split, _, source in read_written(out))
    records = pl.read_csv(out / "statistics" / "records.csv")
    assert {row[:3]: row[3] for row in records.iter_rows()} == written
    manifest = verify_manifest(out)
    for split, kinds in manifest["splits"].items():
        for kind, figures in kinds.items():
            own = records.filter(kind=kind, split=split)
            assert own["records"].sum() == figures["records"] == summary[f"{split}/{kind}"]
            assert own["characters"].sum() == figures["characters"]
    reasons = pl.read_csv(out / "statistics" / "dropped.csv").group_by("reason").agg(pl.col("records").sum())
    assert dict(reasons.iter_rows()) == manifest["dropped"]
    lengths = pl.read_csv(out / "statistics" / "lengths.csv")
    assert lengths["records"].sum() == manifest["records_out"]
    mixture = pl.read_csv(out / "statistics" / "mixture.csv")
    train = records.filter(split="train").group_by("kind", "source").agg(pl.col("characters").sum())
    assert mixture.select("kind", "source", "characters_out").sort("kind", "source").rows() == sorted(train.rows())


def test_bytes_do_not_depend_on_the_workers(done: Any, tmp_path: Path) -> None:
    place, _, _ = done
    shutil.copytree(place / "in", tmp_path / "in")
    preprocess(tmp_path / "in", WorkFolder(tmp_path), PARAMS, executor=Local(2))
    one, two = (WorkFolder(folder).out / "manifest.json" for folder in (place, tmp_path))
    assert one.read_bytes() == two.read_bytes()


def test_bytes_do_not_depend_on_the_blocks(done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, _, _ = done
    monkeypatch.setattr("pipeline.mapped.BLOCK", 11)
    (tmp_path / "work").mkdir()
    preprocess(place / "in", WorkFolder(tmp_path / "work"), PARAMS, executor=Local(1))
    whole, blocks = (WorkFolder(folder).out / "manifest.json" for folder in (place, tmp_path / "work"))
    assert whole.read_bytes() == blocks.read_bytes()


def test_evaluation_sets_of_the_users(done: Any, tmp_path: Path) -> None:
    place, _, _ = done
    clean = pl.read_parquet(sorted(WorkFolder(place).out.glob("train/documents-*.parquet"))[0])
    (tmp_path / "set.txt").write_text(clean["text"][0].upper())
    (tmp_path / "work").mkdir()
    changed = params(**{**vars(PARAMS), "evaluation_sets": str(tmp_path / "set.txt"), "weights": {}})
    preprocess(place / "in", WorkFolder(tmp_path / "work"), changed, executor=Local(1))
    hits = pl.read_parquet(WorkFolder(tmp_path / "work").out / "contamination.parquet")
    assert clean["id"][0] in hits.filter(evaluation="set.txt:1")["id"].to_list()


@pytest.mark.parametrize(
    "changes", [{"min_chars": 40, "seed": 1}, {"validation_fraction": 0.3, "contamination_words": 7, "weights": {}}]
)
def test_a_changed_threshold_annotates_nothing_anew(
    done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    place, _, _ = done

    def no_annotation(*_: Any) -> None:
        raise AssertionError("annotated again")

    monkeypatch.setattr("pipeline.preprocess.annotate.bounds", no_annotation)
    work = WorkFolder(tmp_path / "again", shards=WorkFolder(place).shards)
    preprocess(place / "in", work, params(**{**vars(PARAMS), **changes}), executor=Local(1))
    monkeypatch.undo()
    clean = WorkFolder(tmp_path / "clean")
    preprocess(place / "in", clean, params(**{**vars(PARAMS), **changes}), executor=Local(1))
    assert (work.out / "manifest.json").read_bytes() == (clean.out / "manifest.json").read_bytes()


def test_another_weight_or_share_searches_nothing_anew(
    done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _, _ = done

    def no_search(*_: Any) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr("pipeline.preprocess.contamination.scan.look_up", no_search)
    changes = {"contamination_share": 0.9, "weights": {"web": 1.5}}
    work = WorkFolder(tmp_path / "again", shards=WorkFolder(place).shards)
    preprocess(place / "in", work, params(**{**vars(PARAMS), **changes}), executor=Local(1))
    manifests = (verify_manifest(WorkFolder(at).out) for at in (place, tmp_path / "again"))
    before, after = (manifest["dropped"].get("contaminated", 0) for manifest in manifests)
    assert after < before


def test_a_folder_may_be_named_like_a_pattern(tmp_path: Path) -> None:
    """Near duplicates, decontamination and decisions read their own files below it."""
    write_ingested(tmp_path / "ingested")
    for name in ("work", "work[1]*"):
        preprocess(tmp_path / "ingested", WorkFolder(tmp_path / name), PARAMS, executor=Local(1))
    plain, odd = (verify_manifest(WorkFolder(tmp_path / name).out) for name in ("work", "work[1]*"))
    assert plain == odd
