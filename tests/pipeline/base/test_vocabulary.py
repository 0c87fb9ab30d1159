"""A checkpoint whose tokenizer has more tokens than it: an error, or more rows on request."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from model import HybridConfig, HybridLM, load_pretrained, save_pretrained
from pipeline.base.run import make_base
from pipeline.params import Params, load_params
from pipeline.tokenize.bpe import train_bpe
from pipeline.tracking.run import Run
from pipeline.work import WorkFolder

ROOT = Path(__file__).parents[3]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(ROOT)
    found = load_params()
    config = dataclasses.replace(HybridConfig.preset("tiny"), vocab_size=250)
    save_pretrained(HybridLM(config), tmp_path / "checkpoint")
    tokenizer = tmp_path / "tokens" / "tokenizer" / "tokenizer.json"
    tokenizer.parent.mkdir(parents=True)
    train_bpe(["what follows from what was said before"], vocab_size=300).save(str(tokenizer))
    return dataclasses.replace(found, model=dataclasses.replace(found.model, checkpoint=str(tmp_path / "checkpoint")))


def test_a_smaller_vocabulary_is_an_error_that_says_what_to_do(params: Params, tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "work")
    with pytest.raises(ValueError, match=r"has 250 entries, the tokenizer \d+; .*model.extend_vocabulary to true"):
        make_base(tmp_path / "tokens", params, Run(None), work)
    assert not work.out.exists()


def test_it_is_extended_on_request(params: Params, tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "work")
    params = dataclasses.replace(params, model=dataclasses.replace(params.model, extend_vocabulary=True))
    make_base(tmp_path / "tokens", params, Run(None), work)
    before, after = load_pretrained(tmp_path / "checkpoint"), load_pretrained(work.out / "model")
    assert after.config.vocab_size > 250
    assert torch.equal(after.embedding.weight[:250], before.embedding.weight)
    assert torch.isfinite(after.embedding.weight).all()
