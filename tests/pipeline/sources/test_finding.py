"""Which files a sources.yaml names, which it does not, and that what lies outside is read only as pinned."""

import glob
import os
import random
import re
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fsspec.registry import _registry

from pipeline.ingest import run
from pipeline.ingest.plan import plan
from pipeline.params import load_params
from pipeline.preprocess.run import preprocess
from pipeline.shards import Local
from pipeline.sources import find_files
from pipeline.sources.__main__ import main
from pipeline.sources.finding import pin_outside
from pipeline.sources.pins import read_pins
from pipeline.work import WorkFolder
from tests.pipeline.ingest.stage import ingest, manifest, params, quarantining, rows, texts, write_jsonl
from tests.pipeline.sources.commands import follow

ROOT = Path(__file__).parents[3]


def catalog(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sources.yaml").write_text(text)


def one(folder: Path, name: str, text: str = "x") -> Path:
    return write_jsonl(folder / name, [{"text": text}])


def test_each_record_says_its_source(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("web/b.jsonl", "web/a.jsonl", "web/deep/test.jsonl", "held/x.jsonl", "more.jsonl"):
        one(folder, name, name)
    (folder / "README.md").write_text("not data")
    catalog(folder, "web: {path: web}\nchat-2: {path: [more.jsonl, 'held/*.jsonl'], split: validation}\n")
    ingest(tmp_path / "out", params(folder))
    assert [(row[1], row[3], row[4]) for row in rows(tmp_path / "out", "documents")] == [
        ("web", None, "web/a.jsonl"),
        ("web", None, "web/b.jsonl"),
        ("web", "test", "web/deep/test.jsonl"),
        ("chat-2", "validation", "held/x.jsonl"),
        ("chat-2", "validation", "more.jsonl"),
    ]
    assert manifest(tmp_path / "out")["sources"] == {"chat-2": 2, "web": 3}


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_folders_below_a_path_fix_splits_inside_and_outside(tmp_path: Path, scheme: str) -> None:
    folder, far = tmp_path / "in", tmp_path / "test" / "far"  # what is above a path does not count
    for name in ("a/test/x.jsonl", "a/x.jsonl", "dev/deep/x.jsonl", "test.jsonl"):
        one(folder, f"q/{name}"), one(far, name)
    splits = {"a/test/x.jsonl": "test", "a/x.jsonl": None, "dev/deep/x.jsonl": "validation", "test.jsonl": "test"}
    catalog(folder, "q: {path: q}\n")
    assert {file.name: file.split for file in find_files(folder)} == {f"q/{name}": splits[name] for name in splits}
    for path in (far, f"{far}/", f"{far}/*", f"{far}/**/*.jsonl"):
        catalog(folder, f"q: {{path: q}}\nfar: {{path: '{scheme}{path}'}}\n")
        main([str(folder)])
        found = {os.path.relpath(file.name, far): file.split for file in find_files(folder) if file.source == "far"}
        assert found == splits, path
    catalog(folder, f"q: {{path: q}}\nfar: {{path: '{scheme}{far}/a/test/x.jsonl'}}\n")
    main([str(folder)])
    assert find_files(folder)[-1].split is None
    (folder / "sources.yaml").unlink()
    (folder / "sources.lock.json").unlink()
    assert {file.name: file.split for file in find_files(folder)} == {f"q/{name}": splits[name] for name in splits}


@pytest.mark.parametrize("outside", [False, True])
def test_patterns_mean_what_the_shell_means(tmp_path: Path, outside: bool) -> None:
    rng = random.Random(0)
    folder = tmp_path / "in" if outside else tmp_path
    for number in range(40):
        one(tmp_path / "data", "/".join([*rng.choices("ab", k=rng.randrange(4)), f"{rng.choice('xy')}{number}.jsonl"]))
    for pattern in ("*.jsonl", "a/*.jsonl", "**/x*.jsonl", "*/b/*", "[ab]/?1*.jsonl", "a/**/b/*.jsonl", "**"):
        found = set(glob.glob(f"data/{pattern}", root_dir=tmp_path, recursive=True))
        expected = {name for name in found if (tmp_path / name).is_file()}
        below = {name for name in found if pattern.endswith("*") and (tmp_path / name).is_dir()}
        expected |= {
            path.relative_to(tmp_path).as_posix() for name in below for path in (tmp_path / name).rglob("*.jsonl")
        }
        rest = "" if outside else "rest: {path: data}\n"
        catalog(folder, f"some: {{path: '{'../' if outside else ''}data/{pattern}'}}\n{rest}")
        if outside:
            main([str(folder)])
            names = {file.name.removeprefix("../") for file in find_files(folder)}
        else:
            with pytest.raises(ValueError, match="is in two sources, some and rest"):
                find_files(folder)
            catalog(folder, f"some: {{path: 'data/{pattern}'}}\n")
            try:
                names = {file.name for file in find_files(folder)}
            except ValueError as error:
                assert "is in no source of sources.yaml" in str(error)  # noqa: PT017
                continue
        assert names == expected, pattern


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected sources, each a name with its `path`; found none"),
        ("- a", "expected sources"),
        ("3", "expected sources"),
        ("web: [", "not valid YAML"),
        (f"web: {'[' * 3000}{']' * 3000}", "not valid YAML: nested too deep"),
        ("web: &web {path: a, weight: *web}", "not valid YAML: nested too deep, or within itself"),
        ("web: {path: a}\nweb: {path: b}", "not valid YAML: .*web"),
        ("web: a.jsonl", "source 'web' must have a `path`"),
        ("web: {path: []}", "source 'web': path must be a text, or a list of texts"),
        ("web: {path: [1]}", "source 'web': path must be"),
        ("web: {path: a.jsonl, name: b}", "source 'web' has the unknown key name; known are path, split and weight"),
        ("web: {path: a.jsonl, weight: -1}", "source 'web': weight must be a finite number of at least 0"),
        ("web: {path: a.jsonl, weight: .inf}", "source 'web': weight must be a finite number"),
        (f"web: {{path: a.jsonl, weight: {10**400}}}", "source 'web': weight must be a finite number"),
        ("web: {path: a.jsonl, weight: true}", "source 'web': weight must be .* it is True"),
        ("web: {path: a.jsonl, split: train}", "source 'web': split must be validation or test, or left out"),
        ("'we b': {path: a.jsonl}", "source 'we b': a name has letters"),
        ("web: {path: b.jsonl}", "source 'web': there is no file at b.jsonl"),
        ("web: {path: a.jsonl}\nmore: {path: '*.jsonl'}", "a.jsonl is in two sources, web and more; leave it in one"),
        ("web: {path: x/*.jsonl}", "a.jsonl is in no source of sources.yaml: name it there or take it away"),
        (
            "web: {path: '*.jsonl'}\nfar: {path: ../far}",
            "'far': ../far lies outside .* sources.lock.json",
        ),
        ("web: {path: '*.jsonl'}\nfar: {path: 's3://b/*'}", r"'far': s3://b/\* lies outside"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    one(tmp_path / "in", "a.jsonl")
    one(tmp_path / "in", "x/b.jsonl") if "x/" in text else None
    catalog(tmp_path / "in", text)
    with pytest.raises(ValueError, match=message):
        find_files(tmp_path / "in")


def test_what_lies_outside_is_read_as_pinned_or_not_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, far = tmp_path / "in", tmp_path / "far"
    one(far, "b.jsonl", "b"), one(far, "test.jsonl", "t")
    catalog(folder, f"near: {{path: ../far/b.jsonl}}\nfar: {{path: '{far}/t*.jsonl'}}\n")
    main([str(folder)])
    assert capsys.readouterr().out == f"{folder}/sources.lock.json: 2 files pinned\n"
    before = (folder / "sources.lock.json").read_bytes()
    one(far, "t2.jsonl", "came later")
    ingest(tmp_path / "out", params(folder))
    assert [(row[0], row[1], row[3]) for row in rows(tmp_path / "out", "documents")] == [
        ("../far/b.jsonl:1", "near", None),
        (f"{far}/test.jsonl:1", "far", "test"),
    ]
    main([str(folder)])
    assert sorted(read_pins(folder)) == sorted([f"{far}/t*.jsonl", "../far/b.jsonl"])
    ingest(tmp_path / "out", params(folder))
    assert texts(tmp_path / "out") == ["b", "came later", "t"]
    (folder / "sources.lock.json").write_bytes(before)
    one(far, "b.jsonl", "B")
    for remove in (False, True):
        if remove:
            os.unlink(far / "b.jsonl")
        with pytest.raises(ValueError, match=r"b\.jsonl is not what sources\.lock\.json pins: .*-m pipeline\.sources"):
            ingest(tmp_path / "out", params(folder))
    (folder / "sources.lock.json").write_text("{'a'")
    with pytest.raises(ValueError, match=r"sources\.lock\.json is malformed .* write it again, with"):
        find_files(folder)


def test_a_pinned_file_that_is_rewritten_between_planning_and_reading_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, far = tmp_path / "in", tmp_path / "far"
    one(far, "a.jsonl", "a"), one(far, "b.jsonl", "b")
    catalog(folder, "far: {path: ../far}\n")
    main([str(folder)])

    def ingested(work: WorkFolder, text: str) -> str:
        """The text of b.jsonl, which is rewritten once its hash is known."""

        def plan_and_rewrite(*arguments: Any) -> Any:
            pieces = plan(*arguments)
            one(far, "b.jsonl", text)
            return pieces

        monkeypatch.setattr(run, "plan", plan_and_rewrite)
        run.ingest(work, params(folder), executor=Local(1))
        return texts(work.out)[1]

    work = WorkFolder(tmp_path / "touched")
    assert ingested(work, "b") == "b"
    work.check_unchanged("ingest")
    assert list(work.shards.iterdir())
    work = WorkFolder(tmp_path / "changed")
    assert ingested(work, "B") == "B"
    with pytest.raises(ValueError, match=r"far/b\.jsonl changed while ingest ran; run `dvc repro` again"):
        work.check_unchanged("ingest")
    assert not list(work.shards.iterdir())


@pytest.mark.parametrize("pattern", ["far/*.jsonl", "far/**", "far/it's [ab].jsonl", "{}/far/*.jsonl", "in/*.jsonl"])
def test_the_error_for_a_pattern_has_the_command_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "it's a.jsonl"):
        one(tmp_path / ("in" if pattern.startswith("in/") else "far"), name, name)
    follow(pattern.format(tmp_path), Path("in"))
    ingest(tmp_path / "out", params(Path("in")))
    assert texts(tmp_path / "out") == ["it's a.jsonl"] if "it's" in pattern else ["a.jsonl", "it's a.jsonl"]


@pytest.mark.parametrize(
    ("uri", "package", "remedy"),
    [
        ("s3://bucket/x/*.jsonl", "s3fs", r"run `pip install '\.\[cloud\]'`"),
        ("gs://bucket/x", "gcsfs", "run `pip install gcsfs`"),
        ("hf://datasets/a/b/*.parquet", "huggingface_hub", "run `pip install huggingface_hub`"),
    ],
)
def test_the_error_for_a_missing_package_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, package: str, remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.delitem(_registry, uri.partition("://")[0], raising=False)
    with pytest.raises(SystemExit, match=f"{re.escape(uri)}: the package for such addresses .*: {remedy}$"):
        follow(uri, tmp_path / "in")
    assert not list(tmp_path.rglob("sources.*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web: {path: a.jsonl}", "nothing of its sources.yaml lies outside: there is nothing to pin"),
        ("far: {path: ../nothing/*.jsonl}", "source 'far': there is nothing at ../nothing/"),
        ("far: {path: ../fifo}", "fifo is neither a file nor a folder"),
        ("far: {path: 'nowhere://x'}", "nowhere://x cannot be reached: ValueError: Protocol not known: nowhere"),
        (
            "far: {path: 'http://127.0.0.1:1/a.jsonl'}",
            r"http://127.0.0.1:1/a.jsonl cannot be reached: ClientConnectorError",
        ),
        ("far: {path: 'memory://x/nothing*'}", "there is nothing at memory://x/nothing"),
        (
            "far: {path: 'sftp://host/x'}",
            "sftp://host/x: the package .* is not installed .*pip install",
        ),
    ],
)
def test_what_cannot_be_pinned_is_said(tmp_path: Path, text: str, message: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    catalog(tmp_path / "in", text)
    with pytest.raises(SystemExit, match=message):
        main([str(tmp_path / "in")])
    assert not (tmp_path / "in" / "sources.lock.json").exists()


def test_a_file_is_read_once_however_its_path_is_written(tmp_path: Path) -> None:
    folder, far = tmp_path / "in", tmp_path / "far"
    one(far, "m.jsonl", "m"), one(far, "n.jsonl", "n"), one(folder, "a.jsonl", "a")
    catalog(folder, f"all: {{path: [../far/m.jsonl, '{far}/*.jsonl', a.jsonl, './a*']}}\n")
    main([str(folder)])
    ingest(tmp_path / "out", params(folder))
    assert texts(tmp_path / "out") == ["m", "n", "a"]


def test_a_file_uri_is_the_path(tmp_path: Path) -> None:
    folder, far = tmp_path / "in", tmp_path / "far"
    one(far, "a.jsonl", "a"), one(folder, "b.jsonl", "b")
    ways = [f"file://{far}/a.jsonl", f"file://{far}/./a.jsonl", f"file://{far}/..//far/*.jsonl", "../far/a.jsonl"]
    catalog(folder, f"all: {{path: {[*ways, f'file://{folder}/b.jsonl']}}}\n")
    main([str(folder)])
    assert sorted(read_pins(folder)) == sorted(ways)
    files = find_files(folder)
    assert [file.name for file in files] == [f"{far}/a.jsonl", "b.jsonl"]
    lock = folder / "sources.lock.json"
    lock.write_text(lock.read_text().replace(f'"{far}/a.jsonl"', f'"file://{far}/a.jsonl"'))  # as locks once had it
    assert find_files(folder) == files
    for way in ways:
        catalog(folder, f"near: {{path: b.jsonl}}\none: {{path: {far}/a.jsonl}}\nother: {{path: '{way}'}}\n")
        main([str(folder)])
        with pytest.raises(ValueError, match=r"a\.jsonl is in two sources, one and other; leave it in one"):
            find_files(folder)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_an_empty_file_outside_is_put_aside_as_one_inside_is(tmp_path: Path, scheme: str) -> None:
    folder, far = tmp_path / "in", tmp_path / "far"
    one(far, "a.jsonl", "a")
    for name in ("b.jsonl", "c.txt", "d.parquet", "e.jsonl.zst"):
        (far / name).touch()
    catalog(folder, f"far: {{path: '{scheme}{far}'}}\n")
    main([str(folder)])
    ingest(tmp_path / "out", quarantining(folder))
    assert texts(tmp_path / "out") == ["a"]
    assert manifest(tmp_path / "out")["quarantined"] == {"empty": 4}
    with pytest.raises(ValueError, match=r"far/b\.jsonl is empty: fill it or take it away"):
        ingest(tmp_path / "out", params(folder))
    one(far, "b.jsonl", "filled since")
    with pytest.raises(ValueError, match=r"far/b\.jsonl is not what sources\.lock\.json pins"):
        ingest(tmp_path / "out", quarantining(folder))


@pytest.mark.parametrize("paths", ["['{far}', near]", "[near, '{far}']"])
def test_what_is_named_inside_and_outside_is_named_in_either_order(tmp_path: Path, paths: str) -> None:
    folder, far = tmp_path / "in", tmp_path / "far"
    one(far, "m.jsonl", "m")
    catalog(folder, f"all: {{path: {paths.format(far=far)}}}\n")
    (folder / "near").symlink_to(far)
    main([str(folder)])
    assert [file.name for file in find_files(folder)] == ["near/m.jsonl"]


def test_a_tree_of_links_is_read_once(tmp_path: Path) -> None:
    for level in range(30):  # every level doubles the ways to the next
        (tmp_path / "in" / f"{level}").mkdir(parents=True)
        for way in ("l", "r"):
            (tmp_path / "in" / f"{level}" / way).symlink_to(f"../{level + 1}")
    one(tmp_path / "in", "30/a.jsonl")
    files = find_files(tmp_path / "in")
    assert [file.name for file in files if not file.fault] == ["30/a.jsonl"]
    assert {file.fault.reason for file in files if file.fault} == {"repeated"}
    assert len(files) == 1 + 60


@pytest.mark.parametrize("paths", [["../far/test", "../far"], ["../far", "../far/test"]])
def test_what_one_of_its_paths_holds_out_is_held_out(tmp_path: Path, paths: list[str]) -> None:
    one(tmp_path, "far/test/a.jsonl")
    catalog(tmp_path / "in", f"far: {{path: {paths}}}\n")
    main([str(tmp_path / "in")])
    assert [file.split for file in find_files(tmp_path / "in")] == ["test"]


def test_folders_below_a_path_that_its_store_writes_otherwise_fix_splits(tmp_path: Path) -> None:
    """Here without the scheme; others leave out a host or an account."""
    one(tmp_path, "far/test/a.jsonl"), one(tmp_path, "far/a.jsonl")
    catalog(tmp_path / "in", f"far: {{path: 'local://{tmp_path}/far'}}\n")
    main([str(tmp_path / "in")])
    assert [file.split for file in find_files(tmp_path / "in")] == [None, "test"]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_patterns_outside_that_end_in_a_slash_or_begin_with_a_wildcard(tmp_path: Path, scheme: str) -> None:
    one(tmp_path, "far/deep/a.jsonl")
    catalog(tmp_path / "in", f"far: {{path: '{scheme}{tmp_path}/far/*/'}}\n")
    main([str(tmp_path / "in")])
    assert [file.name for file in find_files(tmp_path / "in")] == [f"{tmp_path}/far/deep/a.jsonl"]
    catalog(tmp_path / "in", f"far: {{path: '{scheme}/nowhere*/a.jsonl'}}\n")
    with pytest.raises(ValueError, match="name a folder before the first wildcard"):
        pin_outside(tmp_path / "in")


def test_the_command_writes_what_its_paths_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.jsonl", "far/x/b.jsonl", "far/x/b.txt", "else where/'c\".jsonl"):
        one(Path(), name, name)
    main(["in", "in/*.jsonl", "far/**/*.jsonl", f"{tmp_path}/else where"])
    told = capsys.readouterr().out
    assert "in/sources.yaml: written; it is read with `ingest.source: in` in params.yaml" in told
    assert "in/sources.lock.json: 2 files pinned" in told
    ingest(tmp_path / "out", params(Path("in")))
    assert {row[1:5:3] for row in rows(tmp_path / "out", "documents")} == {
        ("input", name) for name in ("in/a.jsonl", "far/x/b.jsonl", "else where/'c\".jsonl")
    }
    with pytest.raises(SystemExit, match=r"in/sources.yaml is there already: name far in it yourself"):
        main(["in", "far"])
    main(["far", "far"])  # nothing of it lies outside
    assert {file.name for file in find_files(Path("far"))} == {"x/b.jsonl", "x/b.txt"}


def test_a_changed_weight_reads_nothing_anew(tmp_path: Path) -> None:
    """Ingest hands it on in its manifest; preprocess writes the training shards of the source anew."""
    folder, work = tmp_path / "in", WorkFolder(tmp_path / "work")
    for name in ("web", "books"):
        write_jsonl(folder / f"{name}.jsonl", [{"text": f"{name} {number} {'x' * 40}"} for number in range(200)])
    outs = []
    for weight in (1, 3):
        catalog(folder, f"web: {{path: web.jsonl, weight: {weight}}}\nbooks: {{path: books.jsonl}}\n")
        run.ingest(work, params(folder), executor=Local(1))
        assert manifest(work.out)["weights"] == {"web": weight}
        kept = {path: path.stat().st_mtime_ns for path in work.shards.glob("*/result")}
        outs.append((kept, {file.name: file.read_bytes() for file in work.out.glob("*.parquet")}))
    assert outs[0] == outs[1]
    mixed = WorkFolder(tmp_path / "mixed")
    preprocess(work.out, mixed, load_params(ROOT / "params.yaml").preprocess, executor=Local(1))
    mixture = pl.read_csv(mixed.out / "statistics" / "mixture.csv")
    assert mixture.sort("source")["wanted_share"].to_list() == pytest.approx([0.25, 0.75], abs=0.01)


def test_a_pattern_that_matches_nothing_leaves_no_sources_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "big" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "big" / "deep")
    with pytest.raises(SystemExit, match="rww"):
        main(["link", "rww/*.jsonl"])
    assert not list((tmp_path / "link").iterdir())
    main(["link", "raw/*.jsonl"])  # through a link, where a path's own folder is another
    assert {path.name for path in (tmp_path / "link").iterdir()} == {"sources.yaml", "sources.lock.json"}
    for folder in ("s3://bucket/a.jsonl", "raw/*.jsonl"):
        with pytest.raises(SystemExit, match="is no folder"):
            main([folder, "raw/*.jsonl"])
    for folder in ("raw", "nowhere", "raw/a.jsonl"):
        with pytest.raises(SystemExit, match=rf"{folder}/sources\.yaml cannot be read \(.*\): write it"):
            main([folder])
