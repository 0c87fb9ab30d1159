"""A small random model with a tokenizer, as a directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model import HybridConfig, HybridLM, save_pretrained
from model.sampling import Sampling
from pipeline.generate.session import Session, open_session
from pipeline.tokenize.bpe import train_bpe

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = dataclasses.replace(HybridConfig.preset("tiny"), rope_theta=1e4, vocab_size=300, initializer_range=0.2)
    save_pretrained(HybridLM(config), path)
    train_bpe(["what follows from what was said before — ünïcödé"], vocab_size=300).save(str(path / "tokenizer.json"))
    return path


@pytest.fixture
def open_with(model_dir: Path) -> Callable[..., Session]:
    def open_with(**options: object) -> Session:
        defaults = {"raw": False, "max_new_tokens": 24, "sampling": Sampling(), "stop": [], "seed": None}
        return open_session(model_dir, torch.device("cpu"), **{**defaults, **options})

    return open_with
