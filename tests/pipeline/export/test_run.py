"""Every format has the same weights, the tokenizer and the ids; what it cannot express is an error that says so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from model import HybridLM, load_pretrained, save_pretrained
from model.checkpoints import FORMATS
from pipeline.hashing import content_sha256
from pipeline.params import EXPORT_FORMATS
from tests.pipeline.export.conftest import HYBRID, MODEL

PATTERNS = {"hf-mamba2": "MM", "state-spaces": "MM", "hf-bamba": "M-*-", "hf-granite": "M-*-"}


def test_the_formats_of_params_are_those_of_the_model():
    assert tuple(FORMATS) == EXPORT_FORMATS


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_a_format_loads_as_the_same_model_and_is_the_same_bytes_again(project, exported, format):
    gated = {"mlp_activation": "silu-gated", "rope_theta": 1e4, "residual_in_fp32": False}
    changes = {"pattern": PATTERNS.get(format, "M-*")} | (gated if format in ("hf-bamba", "hf-granite") else {})
    model = HybridLM(dataclasses.replace(HYBRID, **changes)).eval()
    save_pretrained(model, MODEL)
    out = exported(format)
    again = load_pretrained(out).eval()
    assert all(parameter.dtype == torch.float32 for parameter in again.parameters())
    input_ids = torch.arange(40)[None]
    assert torch.allclose(again(input_ids).logits, model(input_ids).logits, atol=1e-6)
    assert (out / "tokenizer.json").read_bytes() == (MODEL / "tokenizer.json").read_bytes()
    wanted = {"bos_token_id": 0, "eos_token_id": [4, 0], "pad_token_id": 0}
    assert json.loads((out / "generation_config.json").read_text()) == wanted
    if format.startswith("hf-"):
        assert wanted.items() <= json.loads((out / "config.json").read_text()).items()
    before = content_sha256(out)
    assert content_sha256(exported(format)) == before


def test_a_format_that_cannot_express_the_model_names_itself_and_leaves_nothing(project, exported):
    with pytest.raises(ValueError, match=r"export\.format is hf-mamba2: pattern 'M-\*' has layers other than M"):
        exported("hf-mamba2")
    assert not Path("artifacts/export").exists()
