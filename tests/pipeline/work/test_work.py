"""Work folders: whose work is gone on with, who may work in one, what is pruned."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.dvcfile import read_stages
from pipeline.work import WorkFolder, list_work, open_work, portable_fingerprint, prune, work_root

ROOT = Path(__file__).parents[3]
DAY = 24 * 3600


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A stage over one input, one folder of code and one parameter."""
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  make:\n    cmd: make it\n    deps: [code, '${make.source}', data/given]\n"
        "    params: [make]\n    outs: [data/made]\n    metrics:\n    - speed.json:\n        cache: false\n"
    )
    (tmp_path / "params.yaml").write_text("make:\n  source: input.txt\n  size: 1\nlaunch:\n  workers: 1\n")
    (tmp_path / "input.txt").write_text("input")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "make.py").write_text("print(1)")
    (tmp_path / "data" / "given").mkdir(parents=True)
    (tmp_path / "data" / "given" / "manifest.json").write_text('{"files": {"shard": {"sha256": "0"}}}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_dvc_yaml_is_read_with_the_paths_of_params_yaml(project):
    stage = read_stages()["make"]
    assert stage.deps == ("code", "input.txt", "data/given")
    assert stage.inputs == ("data/given",)
    assert (stage.outs, stage.uncached) == (("data/made",), ("speed.json",))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("code/make.py", "print(2)"),
        ("code/new.py", ""),
        ("input.txt", "other"),
        ("data/given/manifest.json", "[]"),
        ("params.yaml", "make:\n  source: input.txt\n  size: 2\nlaunch:\n  workers: 1\n"),
    ],
)
def test_other_data_code_or_parameters_are_other_work(project, file, content):
    before = portable_fingerprint(read_stages()["make"])
    (project / file).write_text(content)
    assert portable_fingerprint(read_stages()["make"]) != before


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("code/__pycache__/make.pyc", "compiled"),
        ("params.yaml", "make:\n  size: 1\n  source: input.txt\nlaunch:\n  workers: 7\n"),
        ("data/given/not listed", "what the manifest does not name"),
    ],
)
def test_how_it_is_launched_and_compiled_files_make_no_difference(project, file, content):
    before = portable_fingerprint(read_stages()["make"])
    (project / file).parent.mkdir(exist_ok=True)
    (project / file).write_text(content)
    assert portable_fingerprint(read_stages()["make"]) == before


def test_what_lies_behind_a_link_counts(project):
    (project / "elsewhere").mkdir()
    (project / "elsewhere" / "text").write_text("one")
    (project / "code" / "link").symlink_to(project / "elsewhere")
    (project / "elsewhere" / "itself").symlink_to(project / "elsewhere")
    before = portable_fingerprint(read_stages()["make"])
    (project / "elsewhere" / "text").write_text("two")
    assert portable_fingerprint(read_stages()["make"]) != before


def test_work_of_a_temporary_copy_is_kept_in_the_original(project, tmp_path_factory, monkeypatch):
    assert work_root() == Path("work")
    monkeypatch.setenv("DVC_ROOT", str(project))
    assert work_root() == Path("work")
    monkeypatch.chdir(tmp_path_factory.mktemp("copy"))
    assert work_root() == project / "work"


def test_a_second_process_waits_for_the_first(project):
    code = (
        "from pipeline.work import open_work\n"
        "with open_work('make', {}, lambda line: print(line, flush=True)) as work:\n"
        "    print('in', flush=True); input()\n"
    )

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT)},
            text=True,
        )

    first = start()
    assert first.stdout.readline() == "in\n"
    (state,) = list_work(Path("work"))
    assert (state.state, state.pid) == ("running", first.pid)
    second = start()
    assert second.stdout.readline().startswith(f"process {first.pid} works on the same in {state.path}")
    assert prune(Path("work"), everything=True) == []  # in use
    first.kill()
    first.wait()
    assert second.stdout.readline() == "in\n"
    second.kill()
    second.wait()
    assert [state.state for state in list_work(Path("work"))] == ["interrupted"]


def test_pruned_while_another_waits(project):
    """Who waits for a folder that is removed meanwhile gets a new one, not a lock on nothing."""
    with open_work("make", {}, print) as work:
        waiting = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from pipeline.work import open_work\n"
                "with open_work('make', {}, lambda line: print(line, flush=True)) as work:\n"
                "    print((work.path / 'lock').exists(), flush=True)\n",
            ],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT)},
            text=True,
        )
        assert "waiting" in waiting.stdout.readline()
        shutil.rmtree(work.path)
    assert waiting.stdout.readline() == "True\n"
    assert waiting.wait(20) == 0


def test_processes_that_take_a_folder_while_others_prune_it_find_it_whole(project):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom pipeline.work import open_work, prune\n"
        "end = time.monotonic() + 3\n"
        "while time.monotonic() < end:\n"
        "    if sys.argv[1] == 'prune':\n        prune(Path('work'), everything=True)\n        continue\n"
        "    with open_work('make', {}, lambda line: None) as work:\n"
        "        work.scratch.mkdir(exist_ok=True)\n        work.progress(1, 2, 'step')\n"
        "        assert sorted(path.name for path in work.path.iterdir()) "
        "== ['about.json', 'lock', 'progress.json', 'scratch']\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, do], env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
        for do in ("work", "work", "prune", "prune")
    ]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()


def make(work: WorkFolder) -> None:
    (work.out).mkdir(parents=True)
    (work.out / "file").write_text("made")
    told = work.path / "events"
    told.write_text("told\n")
    work.finish(told)


def test_finished_work_is_published_again_unless_it_is_damaged(project):
    warnings: list[str] = []
    with open_work("make", {}, print) as work:
        assert not work.finished(warnings.append)
        (work.scratch).mkdir()
        make(work)
        assert not work.scratch.exists()
        work.publish(Path("data/made"))
    assert (project / "data/made/file").read_text() == "made"
    assert [path.name for path in (project / "data/made").iterdir()] == ["file"]
    shutil.rmtree("data/made")
    with open_work("make", {}, print) as work:
        assert work.finished(warnings.append)
        work.publish(Path("data/made"))
        assert work.told.read_text() == "told\n"
    assert (project / "data/made/file").read_text() == "made"
    assert not warnings
    (work.out / "file").unlink()
    (work.out / "file").write_text("mad")
    with open_work("make", {}, print) as work:
        assert not work.finished(warnings.append)
    assert "out/file is cut short or changed" in warnings[0]
    assert not work.out.exists()


def test_what_is_old_is_pruned_by_its_state(project):
    ages = {"finished": (0.9, 1.1), "interrupted": (13.0, 15.0)}
    for state, days in ages.items():
        for age in days:
            folder = Path("work/make") / f"{state}-{age}"
            folder.mkdir(parents=True)
            (folder / "about.json").write_text(json.dumps({"portable": "p"}))
            (folder / "lock").touch()
            (folder / "progress.json").write_text(json.dumps({"done": 3, "total": 9, "unit": "step"}))
            if state == "finished":
                make(WorkFolder(folder))
            for file in folder.rglob("*"):
                os.utime(file, (time.time() - age * DAY,) * 2)
    before = {state.fingerprint: state for state in list_work(Path("work"))}
    assert {state.state for state in before.values()} == set(ages)
    assert (before["interrupted-13.0"].done, before["interrupted-13.0"].total) == (3, 9)
    gone = prune(Path("work"))
    assert sorted(state.fingerprint for state in gone) == ["finished-1.1", "interrupted-15.0"]
    assert sorted(path.name for path in Path("work/make").iterdir()) == ["finished-0.9", "interrupted-13.0"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.work"], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert "interrupted at step 3 of 9" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.work", "prune", "--all"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "MB freed" in done.stdout
    assert not list(Path("work/make").iterdir())


def test_bytes_that_an_output_holds_anyway_are_not_counted(project):
    with open_work("make", {}, print) as work:
        work.out.mkdir(parents=True)
        (work.out / "file").write_bytes(b"x" * 1_000_000)
        (work.path / "events").touch()
        work.finish(work.path / "events")
        (before,) = list_work(Path("work"))
        work.publish(Path("data/made"))
    (after,) = list_work(Path("work"))
    assert before.bytes - after.bytes == 1_000_000


def test_what_was_made_of_something_that_changed_meanwhile_is_not_kept(tmp_path):
    shards = tmp_path / "shards"
    for name, age in (("before", 60), ("meanwhile", 0)):
        (shards / name).mkdir(parents=True)
        (shards / name / "result").write_bytes(b"")
        os.utime(shards / name / "result", (time.time() - age,) * 2)
    work = WorkFolder(tmp_path, lambda: ["input.txt"], shards=shards)
    with pytest.raises(ValueError, match=r"input\.txt changed while make ran"):
        work.check_unchanged("make")
    assert [entry.name for entry in shards.iterdir()] == ["before"]
