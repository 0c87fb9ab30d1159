"""The real pipeline at a small setting, in clean checkouts: what runs when, what comes out, what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import polars as pl
import psutil
import pytest
import torch
from mlflow.tracking import MlflowClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from model import HybridConfig, HybridLM, generate, load_pretrained, save_pretrained
from pipeline.tokenize.bpe import train_bpe
from tests.model.checkpoints import oracle
from tests.model.compare import assert_agree
from tests.project import SMALL, STAGES, Project, write_jsonl


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Project:
    """The default corpus, all stages run once."""
    project = Project(tmp_path_factory.mktemp("embedded") / "clone")
    project.set_all(SMALL)
    assert project.repro() == STAGES
    return project


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Project:
    """A user's JSONL file, all stages run once."""
    project = Project(tmp_path_factory.mktemp("own") / "clone")
    write_jsonl(project.path / "data/input/mine.jsonl")
    project.set_all(SMALL | {"ingest.source": "data/input/mine.jsonl"})
    assert project.repro() == STAGES
    return project


def test_default_corpus_is_real_and_held_out_modules_are_not_trained_on(embedded):
    manifest = embedded.read("data/ingested/manifest.json")
    records = manifest["records"]
    assert records["conversations"] > 5000, records
    clean = embedded.read("data/clean/manifest.json")
    assert clean["records_in"] == clean["records_out"] + sum(clean["dropped"].values())
    dropped = pl.read_parquet(embedded.path / "data/clean/dropped.parquet")
    assert dict(dropped.group_by("reason").len().iter_rows()) == clean["dropped"]
    groups = {split: groups_of(embedded, split) for split in ("train", "validation", "test")}
    assert not groups["train"] & (groups["validation"] | groups["test"])
    assert not groups["validation"] & groups["test"]
    assert all(groups.values())


def groups_of(project: Project, split: str) -> set[str]:
    files = sorted((project.path / "data/clean" / split).glob("*.parquet"))
    return set().union(*(pl.read_parquet(file)["group"].to_list() for file in files))


def test_the_default_corpus_is_the_same_bytes_elsewhere_and_with_one_worker(embedded, tmp_path):
    other = Project(tmp_path / "else where")
    other.set_all(SMALL | {"launch.workers": 1})
    assert other.run("dvc", "repro", "tokenize").returncode == 0
    folders = ("data/ingested", "data/clean", "data/tokens")
    assert other.hashes(*folders) == embedded.hashes(*folders)


def test_metrics_have_both_models_and_both_baselines(embedded):
    metrics = embedded.read("artifacts/evaluate/metrics.json")
    assert metrics.keys() == {"base", "finetuned", "unigram", "bigram"}
    for model in ("base", "finetuned"):
        assert metrics[model].keys() == {
            "response_loss", "response_perplexity", "document_loss", "bits_per_byte", "chrf"
        }  # fmt: skip
    assert metrics["bigram"]["bits_per_byte"] < metrics["unigram"]["bits_per_byte"] < 8
    samples = [json.loads(line) for line in (embedded.path / "artifacts/evaluate/samples.jsonl").open()]
    assert len(samples) == 2
    assert all(sample.keys() == {"id", "prompt", "reference", "base", "finetuned"} for sample in samples)


def test_runs_are_tracked_as_one_execution_with_a_child_per_stage(embedded):
    client = MlflowClient(f"sqlite:///{embedded.path}/work/mlflow.db")
    experiment = client.get_experiment_by_name("mamba2")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "execution" in run.data.tags]
    children = {run.info.run_name: run for run in runs if run is not parent}
    assert sorted(children) == sorted(STAGES)
    for child in children.values():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params["finetune.budget"] == "4.0"
    losses = client.get_metric_history(children["base"].info.run_id, "validation_loss")
    assert [point.step for point in losses][-1] == 6 * 4 * 128
    assert parent.data.metrics["evaluate/base/bits_per_byte"] > 0
    assert any(tag.startswith("data/") for tag in children["base"].data.tags)


def test_a_second_repro_does_nothing(embedded):
    assert embedded.repro() == []


def test_only_what_a_change_touches_runs_again(own):
    files = [own.path / name for name in ("params.yaml", "model/hybrid.py", "pipeline/params.py")]
    before = [file.read_text() for file in files]
    own.set(finetune__lr=2e-3)
    assert own.repro() == ["finetune", "evaluate", "export"]
    own.set(launch__workers=1, tracking__experiment="other")
    assert own.repro() == []
    with (own.path / "model/hybrid.py").open("a") as file:
        file.write("\n# a change in model/\n")
    assert own.repro() == ["base", "finetune", "evaluate", "export"]
    with (own.path / "pipeline/params.py").open("a") as file:
        file.write("\n# a new field of the schema, say\n")
    assert own.repro() == []
    for file, text in zip(files, before, strict=True):
        file.write_text(text)


def test_a_changed_user_file_runs_the_pipeline_and_an_untouched_one_does_not(own):
    assert own.repro() == []
    write_jsonl(own.path / "data/input/mine.jsonl", count=70)
    assert own.repro() == STAGES


def test_a_parameter_there_and_back_is_taken_from_the_cache(own):
    before = own.hashes("artifacts")
    own.set(finetune__lr=3e-3)
    assert own.repro() == ["finetune", "evaluate", "export"]
    own.set(finetune__lr=1e-3)
    assert own.repro() == []
    assert own.hashes("artifacts") == before


def test_two_clones_in_different_places_make_the_same_bytes(own, tmp_path):
    other = Project(tmp_path / "somewhere" / "else entirely")
    (other.path / "data/input/mine.jsonl").write_bytes((own.path / "data/input/mine.jsonl").read_bytes())
    other.set_all(SMALL | {"ingest.source": "data/input/mine.jsonl", "launch.workers": 1})
    assert other.repro() == STAGES
    folders = ("data/ingested", "data/clean", "data/tokens", "artifacts/base/model", "artifacts/finetune/model")
    assert own.hashes(*folders) == other.hashes(*folders)
    for figures in (
        "artifacts/base/metrics.json",
        "artifacts/finetune/metrics.json",
        "artifacts/evaluate/metrics.json",
    ):
        assert own.read(figures) == other.read(figures)


def test_an_experiment_changes_a_parameter_and_compares(own):
    done = own.run("dvc", "exp", "run", "--name", "hot", "-S", "finetune.lr=5e-3")
    assert done.returncode == 0, done.stderr
    assert "Running stage 'finetune'" in done.stdout
    assert "Running stage 'base'" not in done.stdout
    shown = own.run("dvc", "exp", "show", "--csv")
    assert shown.returncode == 0, shown.stderr
    header, *lines = shown.stdout.splitlines()
    assert "finetune.lr" in header
    assert "artifacts/evaluate/metrics.json:finetuned.response_loss" in header or "finetuned.response_loss" in header
    assert any("hot" in line and "0.005" in line for line in lines)


def test_documents_alone_and_conversations_alone_go_all_the_way(tmp_path):
    for name, field in (("documents", "text"), ("conversations", "prompt")):
        project = Project(tmp_path / name)
        write_jsonl(project.path / "all.jsonl")
        source = project.path / "data/input/some.jsonl"
        source.write_text("".join(line for line in (project.path / "all.jsonl").open() if field in json.loads(line)))
        project.set_all(SMALL | {"ingest.source": str(source)})
        assert project.repro() == STAGES
        metrics = project.read("artifacts/evaluate/metrics.json")
        assert ("bits_per_byte" in metrics["base"]) == (name == "documents")
        assert ("response_loss" in metrics["base"]) == (name == "conversations")


def test_a_checkpoint_of_transformers_is_fine_tuned(own, tmp_path):
    from transformers import Mamba2Config, Mamba2ForCausalLM

    tokenizer = own.path / "data/tokens/tokenizer/tokenizer.json"
    checkpoint = tmp_path / "checkpoint"
    sizes = {"hidden_size": 32, "num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "num_hidden_layers": 2}
    theirs = Mamba2ForCausalLM(Mamba2Config(vocab_size=528, tie_word_embeddings=True, **sizes))
    theirs.save_pretrained(checkpoint)
    project = Project(tmp_path / "clone")
    write_jsonl(project.path / "data/input/mine.jsonl")
    project.set_all(SMALL | {"ingest.source": "data/input/mine.jsonl", "model.checkpoint": str(checkpoint)})
    done = project.run("dvc", "repro")
    assert done.returncode != 0
    assert "set tokenize.tokenizer" in done.stderr  # the checkpoint has no tokenizer of its own
    project.set(tokenize__tokenizer=str(tokenizer))
    assert project.repro() == ["tokenize", "base", "finetune", "evaluate", "export"]
    assert project.read("artifacts/base/metrics.json")["steps"] == 0
    assert project.read("artifacts/finetune/metrics.json")["steps"] > 0
    assert (project.path / "artifacts/finetune/model/tokenizer.json").read_bytes() == tokenizer.read_bytes()
    base = load_pretrained(project.path / "artifacts/base/model")
    ids = torch.arange(40)[None]
    assert torch.allclose(base(ids).logits, theirs(ids).logits, atol=1e-5)
    assert project.run("dvc", "plots", "show").returncode == 0


def test_a_checkpoint_of_any_format_is_fine_tuned_and_given_back_in_it(own, tmp_path):
    tokenizer = own.path / "data/tokens/tokenizer/tokenizer.json"
    project = Project(tmp_path / "clone")
    write_jsonl(project.path / "data/input/mine.jsonl")
    project.set_all(SMALL | {"ingest.source": "data/input/mine.jsonl"})
    sizes = {"vocab_size": 528, "d_model": 32, "d_state": 8, "headdim": 16, "n_heads": 2, "n_kv_heads": 1, "d_ff": 48}
    pairs = {"pattern": "M-*-", "mlp_activation": "silu-gated", "rope_theta": 1e4, "residual_in_fp32": False}
    models = {"native": {"pattern": "M*-"}, "state-spaces": {"pattern": "MM"}, "megatron": {"pattern": "M*-M"}}
    for form, architecture in (models | {"hf-bamba": pairs, "hf-granite": pairs}).items():
        checkpoint = tmp_path / form
        given = HybridLM(HybridConfig(**sizes | architecture, tie_embeddings=form != "megatron"))
        save_pretrained(given, checkpoint, format=form)
        shutil.copy(tokenizer, checkpoint / "tokenizer.json")
        project.set_all({"model.checkpoint": str(checkpoint), "export.format": form})
        assert project.repro()[-4:] == ["base", "finetune", "evaluate", "export"]
        ids = torch.arange(40)[None]
        base, tuned = (load_pretrained(project.path / f"artifacts/{name}/model") for name in ("base", "finetune"))
        assert torch.equal(base(ids).logits, given(ids).logits)
        exported = project.path / "artifacts/export"
        assert_agree([load_pretrained(exported)(ids).logits], [tuned(ids).logits], 1e-6)
        assert not torch.equal(tuned(ids).logits, base(ids).logits)
        there = {path.name for path in checkpoint.iterdir()}
        assert there <= {path.name for path in exported.iterdir()}


@pytest.mark.parametrize(("kind", "field"), [("documents", "text"), ("conversations", "prompt")])
def test_a_checkpoint_of_a_hybrid_is_fine_tuned_and_exported_in_its_own_format(tmp_path, kind, field):
    project = Project(tmp_path / "clone")
    write_jsonl(tmp_path / "all.jsonl")
    lines = [line for line in (tmp_path / "all.jsonl").open() if field in json.loads(line)]
    source = project.path / "data/input/mine.jsonl"
    source.write_text("".join(lines))
    checkpoint = tmp_path / "checkpoint"
    tokenizer = train_bpe(lines, 400)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "hidden_size": 32, "intermediate_size": 48, "n_groups": 2}
    sizes |= {"ssm_state_size": 8, "mamba_num_heads": 4, "mamba_head_dim": 16}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    oracle.make("NemotronH", **sizes, hybrid_override_pattern="M-*M-").save_pretrained(checkpoint)
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    project.set_all(SMALL | {"ingest.source": "data/input/mine.jsonl", "model.checkpoint": str(checkpoint)})
    project.set(export__format="hf-nemotron-h")
    assert project.repro() == STAGES

    exported = project.path / "artifacts/export"
    theirs, told = AutoModelForCausalLM.from_pretrained(exported, output_loading_info=True)
    assert not any(told.values()), told
    ours = load_pretrained(project.path / "artifacts/finetune/model").eval()
    reader = AutoTokenizer.from_pretrained(exported)
    prompt = reader.bos_token + json.loads(lines[0])[field]
    batch = reader(prompt, return_tensors="pt")
    ids = batch["input_ids"]
    assert_agree([theirs.eval()(ids).logits], [ours(ids).logits], 1e-4)
    assert theirs.generation_config.eos_token_id == [4, 0]
    options = {"max_new_tokens": 8, "do_sample": False}
    expected = generate(ours, ids, max_new_tokens=8)[0].tolist()
    answer = theirs.generate(**batch, **options)[0].tolist()
    assert answer == expected[: len(answer)]
    assert len(answer) == len(expected) or answer[-1] in (4, 0)
    card = (exported / "README.md").read_text()
    assert ("all tokens of documents" in card) == (kind == "documents")
    client = MlflowClient(f"sqlite:///{project.path}/work/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("mamba2").experiment_id], card.splitlines()[-1].strip())
    assert run.info.run_name == "finetune"

    project.set(export__format="hf-mamba2")
    done = project.run("dvc", "repro")
    assert "export: error: export.format is hf-mamba2: pattern 'M-*M-' has layers other than M" in done.stderr
    project.set(export__format="gguf")
    done = project.run("dvc", "repro")
    assert "export.format must be one of native, hf-mamba2, hf-nemotron-h" in done.stderr
    project.set(export__format="native")
    assert project.repro() == ["export"]
    assert torch.equal(load_pretrained(exported).eval()(ids).logits, ours(ids).logits)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"finetune.lr": "fast"}, "finetune.lr"),
        ({"model.headdim": 24}, "headdim"),
        ({"tokenize.vocab_size": 100}, "tokenize.vocab_size must be at least 261"),
    ],
)
def test_a_mistake_anywhere_stops_the_first_stage_and_leaves_what_was(own, mistake, words):
    before = own.hashes("data/ingested", "artifacts/evaluate")
    params = (own.path / "params.yaml").read_text()
    own.set_all(mistake | {"ingest.shard_mb": 3.0})
    done = own.run("dvc", "repro")
    (own.path / "params.yaml").write_text(params)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "Running stage 'preprocess'" not in done.stdout
    after = own.hashes("artifacts/evaluate")
    assert after == {path: sha for path, sha in before.items() if path in after}
    assert "artifacts/evaluate/metrics.json" in after


def test_a_killed_dvc_takes_its_stage_along(own):
    dvc = subprocess.Popen(["dvc", "repro", "--force", "finetune"], **own.surroundings(), start_new_session=True)
    stages = []
    deadline = time.monotonic() + 120
    while not stages:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        children = psutil.Process(dvc.pid).children(recursive=True)
        stages = [child for child in children if any("pipeline." in word for word in child.cmdline())]
    dvc.kill()
    dvc.wait()
    assert not psutil.wait_procs(stages, timeout=20)[1]
    own.repro()


def test_a_malformed_line_is_named_and_nothing_is_half_written(own):
    source = own.path / "data/input/mine.jsonl"
    good = source.read_text()
    source.write_text(good + '{"text": "cut off\n')
    done = own.run("dvc", "repro")
    assert done.returncode != 0
    assert f"data/input/mine.jsonl:{good.count(chr(10)) + 1}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (own.path / "data/ingested").exists()
    assert not list((own.path / "data").glob(".*tmp*"))
    source.write_text(good)
    own.repro()
    assert (own.path / "data/ingested/manifest.json").exists()


def test_the_pages_of_mlflow_open(own):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pipeline.tracking", "ui", "--port", str(port)]
    server = subprocess.Popen(
        command, cwd=own.path, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
                break
            except OSError:
                assert server.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server did not answer"
                time.sleep(0.5)
        assert "MLflow" in page
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
