"""The rules that keep the house in order: which way imports point, and what a DVC stage depends on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = ("ingest", "preprocess", "tokenize", "base", "finetune", "evaluate", "export")
NO_EFFECT = tuple(
    f"pipeline.{name}"
    for name in (
        "params",
        "command",
        "process",
        "progress",
        "tracking",
        "status",
        "work",
        "dvcfile",
        "dvclock",
        "hashing",
    )
)
"""What stages import that does not change what they make."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("pipeline", "model", include_external_packages=True, cache_dir=None)


@pytest.fixture(scope="module")
def dvc_stages() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_a_stage_never_imports_another(graph):
    for stage in STAGES:
        for module in {f"pipeline.{stage}", *graph.find_descendants(f"pipeline.{stage}")}:
            for imported in graph.find_modules_directly_imported_by(module):
                others = [s for s in STAGES if s != stage and f"{imported}.".startswith(f"pipeline.{s}.")]
                assert not others, f"{module} imports {imported}"


def test_shared_modules_do_not_import_stages_nor_the_model_the_pipeline(graph):
    staged = tuple(f"pipeline.{stage}" for stage in STAGES)
    for module in graph.modules:
        if module.startswith(staged) or not module.startswith(("pipeline", "model")):
            continue
        for imported in graph.find_modules_directly_imported_by(module):
            assert not imported.startswith(staged), f"{module} imports {imported}"
            if module.startswith("model"):
                assert not imported.startswith("pipeline"), f"{module} imports {imported}"


def test_the_model_needs_torch_and_safetensors_only(graph):
    allowed = {"torch", "safetensors", "triton"} | sys.stdlib_module_names
    for module in graph.modules:
        if module.startswith("model"):
            for imported in graph.find_modules_directly_imported_by(module):
                assert imported.split(".")[0] in allowed | {"model"}, f"{module} imports {imported}"


def test_the_layers_of_the_model_point_one_way(graph):
    order = ["model.ops", "model.state", "model.layers", "model.hybrid", "model.decode", "model.generation"]
    for lower_rank, lower in enumerate(order):
        for upper in order[lower_rank + 1 :]:
            assert not graph.chain_exists(lower, upper, as_packages=True), f"{lower} reaches {upper}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_imports_and_on_no_other(graph, dvc_stages, stage):
    reached = {f"pipeline.{stage}.__main__"}
    todo = list(reached)
    while todo:
        for imported in graph.find_modules_directly_imported_by(todo.pop()):
            if (
                imported not in reached
                and imported.startswith(("pipeline.", "model"))
                and not _without_effect(imported)
            ):
                reached.add(imported)
                todo.append(imported)
    declared = [dep for dep in dvc_stages[stage]["deps"] if dep.startswith(("pipeline/", "model"))]
    folders = [dep.removesuffix(".py").replace("/", ".") for dep in declared]
    for module in reached:
        assert any(f"{module}.".startswith(f"{folder}.") for folder in folders), f"{stage} imports {module}"
    for folder in folders:
        assert any(f"{module}.".startswith(f"{folder}.") for module in reached), f"{stage} does not import {folder}"


def _without_effect(module: str) -> bool:
    return any(f"{module}.".startswith(f"{name}.") for name in NO_EFFECT)


def test_each_parameter_that_dvc_watches_exists_and_each_section_has_an_owner(dvc_stages):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    watched = [key for stage in dvc_stages.values() for key in stage["params"]]
    for key in watched:
        section, _, name = key.partition(".")
        assert section in params, key
        assert not name or name in params[section], key
    assert {key.partition(".")[0] for key in watched} == params.keys() - {"launch", "tracking"}


def test_main_modules_are_short_and_import_nothing_heavy():
    for stage in (*STAGES, "generate"):
        assert len((ROOT / f"pipeline/{stage}/__main__.py").read_text().splitlines()) <= 60
    code = (
        "import sys; import pipeline.params, pipeline.command; "
        f"[__import__(f'pipeline.{{s}}.__main__') for s in {(*STAGES, 'generate')}]; "
        "print(sorted({'torch', 'polars', 'mlflow', 'transformers', 'tokenizers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("room", [*STAGES, "sources", "tracking", "status", "work", "repro", "generate"])
def test_every_command_explains_itself(room):
    done = subprocess.run(
        [sys.executable, "-m", f"pipeline.{room}", "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.startswith(f"usage: python -m pipeline.{room}")
    assert len(done.stdout.split()) > 20
