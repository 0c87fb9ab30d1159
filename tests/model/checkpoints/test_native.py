"""The native checkpoint format, and how broken directories are refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import PRESETS, HybridConfig, HybridLM, load_pretrained, save_pretrained


@pytest.fixture
def saved(tiny: HybridConfig, tmp_path: Path) -> tuple[HybridLM, Path]:
    model = HybridLM(tiny)
    save_pretrained(model, tmp_path / "checkpoint")
    return model, tmp_path / "checkpoint"


def test_round_trip(saved: tuple[HybridLM, Path], device: torch.device) -> None:
    model, path = saved
    loaded = load_pretrained(path, device=device)
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name].cpu(), tensor), name
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]


def test_dtype(saved: tuple[HybridLM, Path], tmp_path: Path) -> None:
    half = load_pretrained(saved[1], dtype=torch.bfloat16)
    assert half.embedding.weight.dtype == torch.bfloat16
    assert half.layers[0].mixer.scan.A_log.dtype == torch.float32
    save_pretrained(half, tmp_path / "half")
    again = load_pretrained(tmp_path / "half")
    assert again.embedding.weight.dtype == torch.bfloat16
    assert torch.equal(again.layers[0].mixer.scan.A_log, saved[0].layers[0].mixer.scan.A_log)


def test_saving_over_a_checkpoint(saved: tuple[HybridLM, Path]) -> None:
    other = HybridLM(PRESETS["tiny"])
    save_pretrained(other, saved[1])
    assert torch.equal(load_pretrained(saved[1]).embedding.weight, other.embedding.weight)


def test_wrong_shape_is_named(saved: tuple[HybridLM, Path]) -> None:
    file = saved[1] / "model.safetensors"
    tensors = load_file(file)
    tensors["norm.weight"] = tensors["norm.weight"][:-1].clone()
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"model.safetensors: norm.weight has shape \(63,\), expected \(64,\)"):
        load_pretrained(saved[1])


def test_missing_and_unknown_tensors_are_named(saved: tuple[HybridLM, Path]) -> None:
    file = saved[1] / "model.safetensors"
    tensors = load_file(file)
    tensors["extra"] = tensors.pop("norm.weight")
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"missing \['norm.weight'\], unknown \['extra'\]"):
        load_pretrained(saved[1])


def test_unknown_field_is_named(saved: tuple[HybridLM, Path]) -> None:
    file = saved[1] / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "window": 1}))
    with pytest.raises(ValueError, match=r"config.json: .* unknown fields \['window'\]"):
        load_pretrained(saved[1])


def test_unknown_format(saved: tuple[HybridLM, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="format is 'onnx'"):
        save_pretrained(saved[0], tmp_path / "x", format="onnx")
    (saved[1] / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="model_type is 'llama'"):
        load_pretrained(saved[1])


def test_pickles_are_not_opened(saved: tuple[HybridLM, Path]) -> None:
    (saved[1] / "model.safetensors").unlink()
    torch.save({}, saved[1] / "pytorch_model.bin")
    with pytest.raises(ValueError, match="convert it to safetensors"):
        load_pretrained(saved[1])
