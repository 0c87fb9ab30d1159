"""Decode states: copies, batches, files."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import DecodeState, HybridConfig, HybridLM, generate, load_state, prefill, save_state


@pytest.fixture
def model(tiny: HybridConfig, device: torch.device) -> HybridLM:
    return HybridLM(dataclasses.replace(tiny, rope_theta=1e4, initializer_range=0.2)).to(device)


@pytest.fixture
def ids(device: torch.device) -> Tensor:
    return torch.randint(0, 512, (1, 30), device=device)


def tensors(state: DecodeState) -> list[Tensor]:
    """What a state holds, padding and spare capacity left out."""
    found = [state.ids]
    for layer in state.layers:
        found += [] if layer is None else [layer.keys, layer.values] if hasattr(layer, "keys") else list(layer)
    return found


def test_the_state_of_a_mamba_is_constant_and_only_attention_keeps_keys(model: HybridLM, ids: Tensor) -> None:
    short, long = prefill(model, ids[:, :3]), prefill(model, ids)
    for symbol, a, b in zip(model.config.layers, short.layers, long.layers, strict=True):
        if symbol == "M":
            assert [tensor.shape for tensor in a] == [tensor.shape for tensor in b]
        elif symbol == "*":
            assert (a.keys.shape[2], b.keys.shape[2]) == (3, 30)
        else:
            assert a is None


def test_copies_are_independent(model: HybridLM, ids: Tensor) -> None:
    state = prefill(model, ids[:, :20])
    before = [tensor.clone() for tensor in tensors(state)]
    for copy in (state.clone(), state.expand(3)):
        with torch.no_grad():
            model(ids[:, 20:].expand(len(copy.ids), -1), state=copy)
        assert all(torch.equal(a, b) for a, b in zip(tensors(state), before, strict=True))


def test_an_expanded_state_is_that_of_equal_rows(model: HybridLM, ids: Tensor) -> None:
    expanded, expected = prefill(model, ids).expand(3), prefill(model, ids.expand(3, -1))
    for a, b in zip(tensors(expanded), tensors(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="the state has 3 rows"):
        expanded.expand(2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_files_bring_back_the_same_state(model: HybridLM, ids: Tensor, tmp_path: Path, dtype: torch.dtype) -> None:
    model.to(dtype)
    state = prefill(model, ids[:, :20])
    save_state(model, state, tmp_path / "state.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    restored = load_state(model, tmp_path / "state.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(tensors(restored), tensors(state), strict=True))
    expected = generate(model, ids, max_new_tokens=8, state=state)
    assert torch.equal(generate(model, ids, max_new_tokens=8, state=restored), expected)


def test_a_failed_write_leaves_what_was_there(model: HybridLM, ids: Tensor, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "state.safetensors"
    save_state(model, prefill(model, ids), path)
    before = path.read_bytes()

    def fail(tensors: object, file: Path, metadata: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("model.state_files.save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        save_state(model, prefill(model, ids[:, :5]), path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["state.safetensors"]


def test_what_is_no_file_is_not_replaced(model: HybridLM, ids: Tensor, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="pipe: cannot be written: it is no file"):
        save_state(model, prefill(model, ids), pipe)
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_state_of_another_model_is_refused(model: HybridLM, ids: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(model, prefill(model, ids), path)
    device = ids.device
    other_weights = HybridLM(model.config).to(device)
    other_config = HybridLM(dataclasses.replace(model.config, norm_eps=1e-3)).to(device)
    other_config.load_state_dict(model.state_dict())
    for other in (other_weights, other_config):
        with pytest.raises(ValueError, match="a decode state of another model"):
            load_state(other, path)


def test_other_and_damaged_files_are_named(model: HybridLM, ids: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with pytest.raises(ValueError, match="no such file"):
        load_state(model, path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_state(model, path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="it holds no decode state"):
        load_state(model, path)
    save_state(model, prefill(model, ids), path)
    metadata = {"format": "mamba2-hybrid-decode-state", "model": _digest_in(path)}
    whole = load_file(path)
    for name, broken in (
        ("ids", torch.zeros(3)),
        ("ids", whole["ids"] + model.config.vocab_size),
        ("layers.0.ssm", torch.zeros(3)),
        ("layers.0.ssm", whole["layers.0.ssm"] * torch.nan),
        ("layers.0.conv", whole["layers.0.conv"].int()),
        ("layers.3.keys", torch.zeros(3)),
    ):
        save_file({**whole, name: broken}, path, metadata=metadata)
        with pytest.raises(ValueError, match="damaged"):
            load_state(model, path)


def _digest_in(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()["model"]
