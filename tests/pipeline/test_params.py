"""params.yaml and its schema: what is there is right, what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.params import flatten, load_params

ROOT = Path(__file__).parents[2]


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Writes params.yaml with some keys changed and returns its path."""
    monkeypatch.chdir(ROOT)

    def edit(**changes: object) -> Path:
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        for key, value in changes.items():
            section, _, name = key.partition("__")
            params[section][name] = value
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(params))
        return path

    return edit


def test_the_committed_file_is_complete_and_literal(monkeypatch):
    monkeypatch.chdir(ROOT)
    raw = yaml.safe_load(Path("params.yaml").read_text())
    flat = flatten(load_params())
    assert flat.keys() == {f"{section}.{key}" for section, keys in raw.items() for key in keys}
    for key, value in flat.items():
        section, _, name = key.partition(".")
        assert value == raw[section][name], key


def test_every_field_is_commented_where_it_first_stands():
    seen: set[str] = set()
    commented: set[str] = set()
    for line in (ROOT / "params.yaml").read_text().splitlines():
        if line.startswith("  "):
            name = line.split(":")[0].strip()
            seen.add(name)
            if "#" in line:
                commented.add(name)
    obvious = {"seed", "pattern", "d_model", "d_state", "headdim", "expand", "n_groups", "n_kv_heads"}
    obvious |= {"tie_embeddings", "residual_in_fp32", "lr", "beta1", "beta2", "weight_decay", "grad_clip"}
    obvious |= {"validation_rows", "test_fraction", "max_new_tokens", "kneser_ney_discount", "experiment"}
    assert seen - commented <= obvious


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"finetune__lrr": 1e-3}, ["unknown key finetune.lrr", "did you mean finetune.lr?"]),
        ({"finetune__lr": "fast"}, ["finetune.lr", "fast"]),
        ({"finetune__lr": 0}, ["finetune.lr must be above 0"]),
        ({"finetune__lr": float("nan")}, ["finetune.lr must be a finite number"]),
        ({"finetune__lr": None}, ["finetune.lr has no value"]),
        ({"base__budget": 1.5}, ["base.budget must be whole", "steps"]),
        ({"base__budget_unit": "hours"}, ["base.budget_unit", "hours", "steps"]),
        ({"base__micro_batch_size": 3}, ["base.micro_batch_size must divide batch_size"]),
        ({"base__precision": "fp4"}, ["base.precision", "fp4"]),
        ({"preprocess__max_chars": 1}, ["preprocess.max_chars must be at least min_chars"]),
        ({"preprocess__validation_fraction": 0.99}, ["preprocess.test_fraction", "below 1"]),
        ({"preprocess__quality": ["gofer"]}, ["preprocess.quality", "gofer", "gopher, c4, fineweb, code, none"]),
        ({"preprocess__quality": []}, ["preprocess.quality must name a preset: [none] for no rules, or any of gopher"]),
        ({"preprocess__quality": ["none", "c4"]}, ["preprocess.quality names none beside c4: none must stand alone"]),
        ({"preprocess__quality": ["c4", "c4"]}, ["preprocess.quality names c4 twice"]),
        ({"preprocess__thresholds": {"c4_sentences": 3}}, ["preprocess.thresholds.c4_sentences", "quality is [none]"]),
        (
            {"preprocess__quality": ["c4"], "preprocess__thresholds": {"c4_sentences": 3}},
            ["preprocess.thresholds.c4_sentences", "did you mean c4_few_sentences?"],
        ),
        (
            {"preprocess__quality": ["c4"], "preprocess__thresholds": {"c4_few_sentences": "few"}},
            ["preprocess.thresholds.c4_few_sentences", "few"],
        ),
        ({"preprocess__pii": ["name"]}, ["preprocess.pii must name each at most once of email, ip, phone"]),
        ({"preprocess__language_model": "lid.bin"}, ["preprocess.language_model must be a file", "lid.bin"]),
        ({"preprocess__languages": ["en"]}, ["preprocess.languages needs language_model"]),
        ({"preprocess__min_language_score": 1.5}, ["preprocess.min_language_score must be from 0 to 1"]),
        ({"preprocess__near_bands": 0}, ["preprocess.near_bands must be at least 1"]),
        ({"preprocess__near_words": 10**9}, ["preprocess.near_words must be at least 1 and at most 1000"]),
        ({"preprocess__contamination_words": 10**12}, ["preprocess.contamination_words must be", "at most 1000"]),
        ({"tokenize__vocab_size": 10**11}, ["tokenize.vocab_size must be at least 261", "at most 16777216"]),
        ({"preprocess__near_duplicates": "maybe"}, ["preprocess.near_duplicates", "maybe"]),
        ({"preprocess__contamination_words": -1}, ["preprocess.contamination_words must be at least 0"]),
        ({"preprocess__contamination_share": 20}, ["preprocess.contamination_share must be from 0 to 1"]),
        ({"preprocess__evaluation_sets": "nowhere"}, ["preprocess.evaluation_sets: no file", "nowhere"]),
        ({"preprocess__weights": {"web": -1}}, ["preprocess.weights.web must be a finite number of at least 0"]),
        ({"preprocess__weights": {"web": "much"}}, ["preprocess.weights.web", "much"]),
        ({"preprocess__temperature": 0}, ["preprocess.temperature must be above 0"]),
        ({"preprocess__max_repeats": 0}, ["preprocess.max_repeats must be from 1 to 1000"]),
        ({"tokenize__vocab_size": 260}, ["tokenize.vocab_size must be at least 261"]),
        ({"tokenize__seqlen": 4}, ["tokenize.seqlen must be from 8"]),
        ({"tokenize__formats": ["rows", "npz"]}, ["tokenize.formats must be of rows, megatron", "npz"]),
        ({"tokenize__formats": ["parquet"]}, ["tokenize.formats must have rows, which training reads"]),
        ({"tokenize__formats": "rows"}, ["tokenize.formats must be a list, as in [rows]; it is 'rows'"]),
        ({"tokenize__tokenizer": "nowhere.json"}, ["tokenize.tokenizer: no file", "nowhere.json"]),
        ({"tokenize__chat_template": "nowhere.jinja"}, ["tokenize.chat_template: no file", "nowhere.jinja"]),
        ({"tokenize__chat_template": "/"}, ["tokenize.chat_template must be a file of Jinja"]),
        ({"ingest__source": "data/input/nowhere.jsonl"}, ["ingest.source: no file", "nowhere.jsonl"]),
        (
            {"ingest__source": "s3://bucket/x/*.jsonl"},
            ["ingest.source is the address", "python -m pipeline.sources FOLDER 's3://bucket/x/*.jsonl'`"],
        ),
        (
            {"ingest__source": "data/input/*.jsonl"},
            ["ingest.source is the pattern", "python -m pipeline.sources FOLDER 'data/input/*.jsonl'`"],
        ),
        ({"model__pattern": "MXM"}, ["model.", "pattern", "X"]),
        ({"model__headdim": 48}, ["model.", "headdim"]),
        ({"model__mlp_activation": "tanh"}, ["model.", "activation", "tanh"]),
        ({"base__seed": -1}, ["base.seed must be from 0"]),
        ({"tokenize__seed": 2**64}, ["tokenize.seed"]),
        ({"model__d_model": 128.5}, ["model.d_model"]),
        ({"export__format": "gguf"}, ["export.format must be one of native, hf-mamba2, hf-nemotron-h", "gguf"]),
        ({"launch__workers": -1}, ["launch.workers"]),
        ({"launch__executor": "dask"}, ["launch.executor", "dask", "slurm"]),
        ({"launch__ray_address": "a cluster"}, ["launch.ray_address must be empty", "a cluster"]),
        ({"launch__slurm_options": "--comment='x"}, ["launch.slurm_options must have its quotation marks"]),
    ],
)
def test_a_mistake_is_named_with_its_full_key(edited, changes, words):
    with pytest.raises(ValueError, match=r"params\.yaml") as error:
        load_params(edited(**changes))
    for word in words:
        assert word in str(error.value)


def test_an_unknown_or_missing_section_is_named(edited):
    path = edited()
    params = yaml.safe_load(path.read_text())
    params["finetunes"] = params.pop("finetune")
    path.write_text(yaml.safe_dump(params))
    with pytest.raises(ValueError, match=r"unknown key finetunes; did you mean finetune\?"):
        load_params(path)
    del params["finetunes"]
    path.write_text(yaml.safe_dump(params))
    with pytest.raises(ValueError, match="finetune is missing"):
        load_params(path)


def test_an_interpolation_is_refused_since_dvc_would_not_see_through_it(edited):
    with pytest.raises(ValueError, match=r"params\.yaml:\d+: no `\$\{…\}` here"):
        load_params(edited(finetune__lr="${base.lr}"))


@pytest.mark.parametrize("text", ["a: [1", "", "just words", "ingest: {}\ningest: {}\n"])
def test_a_file_that_is_no_mapping_of_sections_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"params\.yaml"):
        load_params(path)


def test_a_key_that_stands_twice_is_named_with_its_line(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("base:\n  seed: 1\n  lr: 1.0\n  seed: 2\n")
    with pytest.raises(ValueError, match=r"duplicate key seed in .* line 4"):
        load_params(path)


def test_a_number_beyond_floats_is_named(edited):
    with pytest.raises(ValueError, match=r"preprocess\.weights\.a: too large a number"):
        load_params(edited(preprocess__weights={"a": 10**400}))


def test_numbers_read_as_dvc_writes_them(edited):
    path = edited()
    path.write_text(path.read_text().replace("weight_decay: 0.1", "weight_decay: 1e-1"))
    assert load_params(path).base.weight_decay == 0.1
