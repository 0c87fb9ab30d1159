"""A project in a temporary directory, as the stages before export leave it, but small and made by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from model import HybridConfig, HybridLM, save_pretrained
from pipeline.export.run import export
from pipeline.params import ExportParams, Params, load_params
from pipeline.tokenize.bpe import train_bpe
from pipeline.tracking import Run

ROOT = Path(__file__).parents[3]
MODEL = Path("artifacts/finetune/model")
TEXTS = ["The state carries what it saw.\n\n", "def f(x):\n    return x + 1\n", "User:\nhi\n\nAssistant:\nno"] * 20
SPLIT = {"records_in": 12, "dropped": {"too_long": 2}, "tokens": 1234}

HYBRID = HybridConfig(
    pattern="M-*",
    vocab_size=300,
    d_model=32,
    d_state=8,
    headdim=16,
    n_heads=2,
    n_kv_heads=1,
    d_ff=48,
    mlp_activation="relu2",
    tie_embeddings=False,
)


@pytest.fixture
def params(monkeypatch) -> Params:
    monkeypatch.chdir(ROOT)
    return load_params()


@pytest.fixture
def project(params, tmp_path, monkeypatch) -> Path:
    """A hybrid with a tokenizer trained here, fine-tuned on conversations."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_pretrained(HybridLM(HYBRID), MODEL)
    backend: Backend = train_bpe(TEXTS, 300)
    backend.save(str(MODEL / "tokenizer.json"))
    manifests = {
        "ingested": {"records": {"documents": 0, "conversations": 1500}},
        "clean": {"records_in": 1500, "records_out": 1490, "repeated": {"documents": 0}},
        "tokens": {"conversations": {"train": SPLIT, "test": SPLIT}},
    }
    for name, manifest in manifests.items():
        write(Path("data") / name / "manifest.json", manifest | {"files": {"shard": {"records": 1, "sha256": "0"}}})
    both = {"base": {"response_loss": 5.25, "chrf": 3.0}, "finetuned": {"response_loss": 3.5, "chrf": 9.0}}
    write(Path("artifacts/evaluate/metrics.json"), both | {"bigram": {"bits_per_byte": 1.75}})
    write(Path("artifacts/finetune/metrics.json"), {"steps": 40, "tokens": 40960, "validation_loss": 3.25})
    return tmp_path


@pytest.fixture
def plain_text_tokenizer(project) -> None:
    """In place of the tokenizer, one without role tokens: every character is a token."""
    alphabet = sorted(set("".join(TEXTS)) | set("System:?"))
    vocabulary = {name: index for index, name in enumerate(["<s>", "</s>", "<unk>", *alphabet])}
    backend = Backend(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.decoder = decoders.Fuse()
    backend.save(str(MODEL / "tokenizer.json"))


@pytest.fixture
def exported(project, params) -> Callable[..., Path]:
    """Exports in a format, anew, and returns the folder."""

    def run(format: str = "native") -> Path:
        out = Path("artifacts/export")
        shutil.rmtree(out, ignore_errors=True)
        export(MODEL, out, replace(params, export=ExportParams(format)), Run(None))
        return out

    return run


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
