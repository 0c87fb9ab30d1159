"""What people read: work in progress beside the verdicts, and the command itself."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.dvcfile import read_stages
from pipeline.status.stages import look
from pipeline.status.table import render
from pipeline.work import WorkFolder, open_work
from tests.project import ROOT

DVC_YAML = """
stages:
  bake: {cmd: bake, deps: ["${bake.flour}"], params: [bake], outs: [data/bread]}
  slice: {cmd: slice, deps: [data/bread], params: [slice.width], outs: [data/slices]}
"""
PARAMS = "bake: {flour: wheat, minutes: 40}\nslice: {width: 1.0}\n"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    """Two stages that DVC knows nothing of yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("dvc.yaml").write_text(DVC_YAML)
    Path("params.yaml").write_text(PARAMS)
    Path("wheat").write_text("wheat")
    return tmp_path


def table() -> list[str]:
    return list(render(look(Path(), Path("work"), read_stages()), colour=False))


@contextmanager
def baking() -> Iterator[WorkFolder]:
    with open_work("bake", {}, print) as work:
        yield work


def test_nothing_has_run_yet():
    assert table() == [
        "bake   not run yet",
        "slice  not run yet",
        "",
        "next: `dvc repro` would run bake, slice",
    ]


def test_a_stage_that_runs_says_where_it_is():
    with baking() as work:
        assert re.fullmatch(rf"bake   running      process {os.getpid()} since .*\d\d:\d\d", table()[0])
        work.progress(10, 40, "minute")
        assert table()[0].endswith(", at minute 10 of 40 (25%)")
        assert table()[-1] == "bake is running; nothing to do meanwhile"


def test_a_stage_that_was_stopped_goes_on_only_with_what_it_began_with():
    with baking() as work:
        work.progress(10, 40, "minute")
        (work.path / "scratch").mkdir()
        (work.path / "scratch/dough").write_bytes(b"x" * 2_000_000)
    assert table()[0] == "bake   interrupted  at minute 10 of 40 (25%); `dvc repro` goes on from there"
    Path("params.yaml").write_text(PARAMS.replace("40", "50"))
    assert table() == [
        "bake   not run yet",
        "slice  not run yet",
        "",
        "1 older interrupted run in work/, 2.0 MB: python -m pipeline.work",
        "next: `dvc repro` would run bake, slice",
    ]
    Path("params.yaml").write_text(PARAMS)
    Path("wheat").write_text("rye")
    assert table()[0] == "bake   not run yet"


def test_a_stage_that_has_begun_says_why_but_not_that_its_output_is_missing():
    Path("dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  bake:\n    cmd: bake\n"
        "    deps: [{path: wheat, md5: b8fe8e3e24a5b9a4f1b1ba3a5d6a8bd2}]\n"
        "    params: {params.yaml: {bake: {flour: wheat, minutes: 30}}}\n"
    )
    with baking():
        running = table()
    for first, *reasons, _, _, _ in (running, table()):
        assert first.startswith(("bake   running", "bake   interrupted"))
        assert [reason.strip() for reason in reasons] == ["bake.minutes 30 -> 40", "wheat changed"]


def test_a_run_with_other_parameters_is_shown_beside():
    with baking() as work:
        work.progress(10, 40, "minute")
        Path("params.yaml").write_text(PARAMS.replace("40", "50"))
        first, second, *_ = table()
    assert first == "bake   not run yet"
    assert second.strip().startswith(f"running with other parameters, data or code: process {os.getpid()}")


def test_a_stage_that_was_done_before_dvc_heard_of_it(tmp_path):
    (tmp_path / "told").touch()
    with baking() as work:
        work.out.mkdir(parents=True)
        (work.out / "bread").touch()
        work.finish(tmp_path / "told")
    assert table()[0] == f"bake   not run yet  but done in {work.path}; `dvc repro` takes that"


def status(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.status", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_the_command_prints_the_table_without_colour():
    done = status()
    assert done.stdout.splitlines() == table()
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_gets_colour_unless_it_asks_for_none():
    for variables, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        ours, theirs = pty.openpty()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"} | variables
        subprocess.run(
            [sys.executable, "-m", "pipeline.status"], stdout=theirs, env=environment, timeout=60, check=True
        )
        os.close(theirs)
        assert (b"\x1b[33mnot run yet\x1b[0m" in os.read(ours, 4096)) == coloured
        os.close(ours)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("dvc.yaml", None, "dvc.yaml: not found; run from the repository's root"),
        ("dvc.yaml", "stages: [", "not valid YAML"),
        ("dvc.yaml", "{}", "dvc.yaml: not a pipeline"),
        ("dvc.yaml", "stages: {}", "dvc.yaml: it has no stages"),
        ("dvc.yaml", DVC_YAML.replace('"${bake.flour}"', "data/slices"), "stages wait for each other"),
        ("params.yaml", None, "params.yaml: not found"),
        ("dvc.lock", "schema: '2.0'\nstages: {bake: 1}", "dvc.lock: not what DVC writes"),
        ("dvc.lock", "<<<<<<< ours\n", "dvc.lock: expected sections"),
        ("dvc.lock", "", "`make repro` puts back what a kill cut off"),
    ],
)
def test_a_broken_project_is_one_line(file, content, words):
    Path(file).unlink(missing_ok=True)
    if content is not None:
        Path(file).write_text(content)
    done = status()
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_imports_nothing_that_takes_a_second():
    code = (
        "import sys; sys.argv = ['status']; from pipeline.status.__main__ import main; main(); "
        "print({'dvc', 'torch', 'polars', 'mlflow', 'omegaconf', 'transformers'} & sys.modules.keys())"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
