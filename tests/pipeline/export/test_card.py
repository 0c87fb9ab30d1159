"""The card says what the model is and what made it, by content, and nothing of when and where."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from pipeline.export.formats import library
from pipeline.hashing import content_sha256
from pipeline.params import EXPORT_FORMATS, flatten
from tests.pipeline.export.conftest import HYBRID, MODEL


def card(out: Path) -> tuple[dict, str]:
    """The front matter, and the text below it."""
    _, front, text = (out / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_every_format_has_a_library(format):
    assert library(format)


def test_the_front_matter(exported):
    front, _ = card(exported("hf-nemotron-h"))
    assert front == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["mamba2", "state-space-model", "hybrid"],
    }


def test_the_model_and_its_metrics(exported):
    _, text = card(exported())
    assert f"| parameters | {HYBRID.num_parameters():,} |" in text
    assert "1 Mamba2, 1 attention and 1 MLP layers" in text
    assert "| pattern | `M-*` |" in text
    assert "| | base | fine-tuned | bigram |" in text
    assert "| response_loss | 5.2500 | 3.5000 | - |" in text
    assert "| bits_per_byte | - | - | 1.7500 |" in text
    assert "40 steps, 40,960 tokens" in text


def test_the_data_and_the_run_by_content(exported):
    _, text = card(exported())
    for name in ("ingested", "clean", "tokens"):
        manifest = Path("data") / name / "manifest.json"
        assert f"| data/{name} | " in text
        assert f"| `{hashlib.sha256(manifest.read_bytes()).hexdigest()}` |" in text
    assert "1,500 conversations" in text
    assert "1,490 of 1,500 records kept" in text
    assert "conversations, train: 10 (1,234 tokens)" in text
    assert f"tags.`artifacts/finetune/model` = '{content_sha256(MODEL)}'" in text


def test_all_parameters_but_those_of_how_to_run(exported, params):
    _, text = card(exported("hf-nemotron-h"))
    stated = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    flat = {f"{section}.{name}": value for section, values in stated.items() for name, value in values.items()}
    expected = {key: value for key, value in flatten(params).items() if not key.startswith(("launch.", "tracking."))}
    assert flat == expected | {"export.format": "hf-nemotron-h"}


def test_how_to_load_says_what_fits_the_format_and_the_data(exported):
    assert "apply_chat_template(messages" in card(exported("hf-nemotron-h"))[1]
    tokens = Path("data/tokens/manifest.json")
    written = json.loads(tokens.read_text())
    tokens.write_text(json.dumps({"files": written["files"], "documents": written["conversations"]}))
    documents = card(exported("hf-nemotron-h"))[1]
    assert "apply_chat_template(messages" not in documents
    assert "on\nall tokens of documents" in documents
    assert "python -m pipeline.generate --model DIR" in card(exported())[1]


def test_the_snippets_of_transformers_run(exported, monkeypatch):
    out = exported("hf-nemotron-h")
    snippet = card(out)[1].split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(out)
    exec(snippet, {})
