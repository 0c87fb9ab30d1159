"""What waits for what, and what is remembered for the day when it has changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.dvcfile import read_stages
from pipeline.status.content import directory
from pipeline.status.listings import Listings
from pipeline.status.stages import Standing, look, remember
from pipeline.work import open_work

DVC_YAML = """
stages:
  slice: {cmd: slice, deps: [knives, data/bread], outs: [data/slices]}
  bake: {cmd: bake, deps: [recipes, oven.txt], outs: [data/bread]}
  eat: {cmd: eat, deps: [data/slices/first], outs: [data/crumbs]}
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Three stages, recorded as they are now, but with outputs that exist nowhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("dvc.yaml").write_text(DVC_YAML)
    Path("params.yaml").write_text("{}")
    for name in ("recipes/bread", "knives/long", "oven.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(name)
    locked = {
        "bake": (["recipes", "oven.txt"], ["data/bread"]),
        "slice": (["knives", "data/bread"], ["data/slices"]),
        "eat": (["data/slices/first"], ["data/crumbs"]),
    }
    Path("dvc.lock").write_text(
        "schema: '2.0'\nstages:\n"
        + "".join(
            f"  {name}:\n    cmd: {name}\n    deps: [{entries(deps)}]\n    outs: [{entries(outs)}]\n"
            for name, (deps, outs) in locked.items()
        )
    )


def entries(paths: list[str]) -> str:
    return ", ".join(f"{{path: {path}, md5: {md5(path)}}}" for path in paths)


def md5(path: str) -> str:
    if Path(path).is_dir():
        return directory({file.name: text_md5(file.read_text()) for file in Path(path).iterdir()}).md5
    return text_md5(Path(path).read_text() if Path(path).exists() else path)


def text_md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def standings() -> dict[str, Standing]:
    return {stage.name: stage for stage in look(Path(), Path("work"), read_stages()).stages}


def into_cache(path: str) -> None:
    cached = Path(".dvc/cache/files/md5", text_md5(path)[:2], text_md5(path)[2:])
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_text(path)


def test_stages_keep_the_order_of_dvc_yaml_and_wait_in_that_of_the_data():
    found = standings()
    assert list(found) == ["slice", "bake", "eat"]
    assert {name: stage.waits_for for name, stage in found.items()} == {
        "bake": (),
        "slice": ("bake",),
        "eat": ("slice",),  # it reads a part of what slice makes
    }


def test_what_a_stage_before_makes_is_awaited_and_no_reason():
    found = standings()
    assert [change.text for change in found["slice"].changes] == ["data/bread is missing", "data/slices is missing"]
    assert [change.text for change in found["slice"].reasons] == ["data/slices is missing"]


def test_what_dvc_has_in_its_cache_runs_nothing():
    for path in ("data/bread", "data/slices", "data/slices/first", "data/crumbs"):
        into_cache(path)
    found = standings()
    assert all(stage.outdated for stage in found.values())
    assert not any(stage.runs or stage.waits_for for stage in found.values())
    Path("oven.txt").write_text("hotter")
    found = standings()
    assert [name for name, stage in found.items() if stage.runs] == ["bake"]
    assert found["slice"].waits_for == ("bake",)
    assert found["eat"].waits_for == ("slice",)


def test_work_that_was_stopped_is_of_no_use_to_a_stage_that_is_fresh():
    with open_work("bake", {}, print) as work:
        work.progress(1, 2, "loaf")
    assert look(Path(), Path("work"), read_stages()).other_work == ()
    Path("data/bread").parent.mkdir()
    Path("data/bread").write_text("data/bread")
    into_cache("data/bread")
    project = look(Path(), Path("work"), read_stages())
    assert [stage.name for stage in project.stages if stage.fresh] == ["bake"]
    assert [state.stage for state in project.other_work] == ["bake"]


def test_a_folder_of_which_nothing_is_known_is_named_as_a_whole():
    Path("recipes/bread").write_text("more salt")
    assert standings()["bake"].changes[0].text == "recipes changed"


def test_a_stage_that_started_once_has_its_changes_named():
    remember("bake", Path(), Path("work"), read_stages())
    Path("recipes/bread").write_text("more salt")
    for number in range(5):
        Path(f"recipes/{number}").touch()
    assert [change.text for change in standings()["bake"].changes[:4]] == [
        "recipes/0 added",
        "recipes/1 added",
        "recipes/2 added",
        "and 3 more files in recipes",
    ]


def test_what_stages_made_is_not_remembered():
    Path("data/bread").mkdir(parents=True)
    Path("data/bread/loaf").touch()
    remember("slice", Path(), Path("work"), read_stages())
    listings = Listings(Path(), Path("work"))
    assert listings.files(md5("knives")) == {"long": md5("knives/long")}
    assert listings.files(md5("data/bread")) is None


def test_a_work_folder_that_cannot_be_written_to_costs_only_time():
    Path("work").write_text("not a folder")
    remember("bake", Path(), Path("work"), read_stages())
    assert standings()["bake"].runs
