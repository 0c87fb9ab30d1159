"""A stranger's files: whatever is in them, they load or end in an error that names the file; nothing of them is run."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import HybridConfig, HybridLM, load_pretrained, save_pretrained
from model.checkpoints import FORMATS

MAMBA = {"pattern": "MM", "vocab_size": 48, "d_model": 16, "d_state": 8, "headdim": 8, "chunk_size": 128}
PAIRS = {
    **MAMBA,
    "pattern": "M-*-",
    "n_heads": 4,
    "n_kv_heads": 2,
    "d_ff": 24,
    "mlp_activation": "silu-gated",
    "residual_in_fp32": False,
}
MODELS: dict[str, dict[str, Any]] = {
    "native": PAIRS,
    "hf-mamba2": MAMBA,
    "hf-nemotron-h": {**PAIRS, "mlp_activation": "relu2"},
    "hf-bamba": {**PAIRS, "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    "hf-granite": PAIRS,
    "state-spaces": MAMBA,
    "megatron": {**PAIRS, "n_groups": 2},
}
"""A model that each format can express."""


@pytest.fixture(params=FORMATS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, HybridLM, Path]:
    """A format, a model, and a checkpoint of it."""
    model = HybridLM(HybridConfig(**MODELS[request.param]))
    save_pretrained(model, tmp_path / "checkpoint", format=request.param)
    return request.param, model, tmp_path / "checkpoint"


def untied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A format may store a tied head twice."""
    return {"head.weight": state["embedding.weight"]} | state


def test_a_trip_through_every_format_is_bitwise(written: tuple[str, HybridLM, Path], tmp_path: Path) -> None:
    format, model, path = written
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype)
        save_pretrained(model, path, format=format)
        loaded = load_pretrained(path)
        save_pretrained(loaded, tmp_path / "native")
        again = load_pretrained(tmp_path / "native")
        save_pretrained(again, tmp_path / "back", format=format)
        last = untied(load_pretrained(tmp_path / "back").state_dict())
        for name, tensor in untied(model.state_dict()).items():
            assert last[name].dtype == tensor.dtype, name
            assert torch.equal(last[name], tensor), name


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def test_a_truncated_file_is_named(written: tuple[str, HybridLM, Path]) -> None:
    _, _, path = written
    tensors = max(files_of(path), key=lambda file: file.stat().st_size)
    content = tensors.read_bytes()
    for size in (0, 4, 100, len(content) // 2, len(content) - 1):
        tensors.write_bytes(content[:size])
        with pytest.raises(ValueError, match=tensors.name):
            load_pretrained(path)


def outcome(path: Path) -> str:
    """The message of the error that a checkpoint ends in, its path where it loads."""
    try:
        load_pretrained(path)
    except ValueError as error:
        return str(error)
    return str(path)


def test_flipped_bytes_load_or_end_in_an_error(written: tuple[str, HybridLM, Path]) -> None:
    """Never in another exception, and never in a crash."""
    _, _, path = written
    draw = random.Random(0)
    for file in files_of(path):
        content = file.read_bytes()
        for _ in range(40):
            damaged = bytearray(content)
            for _ in range(draw.choice((1, 1, 8))):
                damaged[draw.randrange(min(len(content), 3000))] = draw.randrange(256)
            file.write_bytes(damaged)
            assert str(path) in outcome(path)
        file.write_bytes(content)


def test_whole_numbers_in_place_of_weights_are_refused(written: tuple[str, HybridLM, Path]) -> None:
    _, _, path = written
    if not (path / "model.safetensors").exists():
        pytest.skip("this format has no safetensors file; what is in pickles is tested below")
    tensors = load_file(path / "model.safetensors")
    key = next(key for key in tensors if key.endswith("A_log"))
    save_file(tensors | {key: torch.ones(tensors[key].shape, dtype=torch.int64)}, path / "model.safetensors")
    with pytest.raises(ValueError, match=f"model.safetensors: {key} is torch.int64, expected floating point"):
        load_pretrained(path)


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch attacked",))


def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_pretrained(HybridLM(HybridConfig(**MAMBA)), tmp_path, format="state-spaces")
    tensors = torch.load("pytorch_model.bin", weights_only=True)
    torch.save(tensors | {"backbone.norm_f.weight": Attack()}, "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin: holds more than tensors"):
        load_pretrained(tmp_path)
    torch.save(tensors | {"step": 3}, "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"\['step'\] are no tensors"):
        load_pretrained(tmp_path)
    torch.save([1], "pytorch_model.bin")
    with pytest.raises(ValueError, match="found a list"):
        load_pretrained(tmp_path)
    assert not Path("attacked").exists()


@pytest.fixture
def sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three shards and their index."""
    monkeypatch.setattr("model.checkpoints.writing.SHARD_BYTES", 4000)
    monkeypatch.setattr("model.checkpoints.writing.write_safetensors.__defaults__", (4000,))
    save_pretrained(HybridLM(HybridConfig(**MAMBA)), tmp_path, format="hf-mamba2")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    return tmp_path


def edit_index(path: Path, edit: Callable[[dict[str, str]], Any]) -> None:
    file = path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    edit(index["weight_map"])
    file.write_text(json.dumps(index))


@pytest.mark.parametrize("trick", ["../elsewhere.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "C:\\x"])
def test_path_tricks_in_an_index_are_refused(sharded: Path, trick: str) -> None:
    save_file({"lm_head.weight": torch.ones(1)}, sharded.parent / "elsewhere.safetensors")
    edit_index(sharded, lambda names: names.update({"lm_head.weight": trick}))
    with pytest.raises(ValueError, match=r"model.safetensors.index.json: "):
        load_pretrained(sharded)


def test_a_shard_that_is_missing_or_there_twice_is_named(sharded: Path) -> None:
    first, *_, last = sorted(sharded.glob("model-*-of-*.safetensors"))
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(ValueError, match=f"{last.name} is missing"):
        load_pretrained(sharded)
    last.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"is in model-00001.* as well"):
        load_pretrained(sharded)
    last.write_bytes(content)
    load_pretrained(sharded)


def test_a_deep_or_odd_configuration_is_an_error(tmp_path: Path) -> None:
    save_pretrained(HybridLM(HybridConfig(**MAMBA)), tmp_path)
    file = tmp_path / "config.json"
    fields = json.loads(file.read_text())
    odd: list[Any] = ["[" * 100_000, "[]", "nul", b"\xff", {"pattern": "M" * 10**6}, {"vocab_size": -1}]
    odd += [{"d_model": 2.5}, {"dt_limit": "all"}, {"rope_scaling": {"kind": "x"}}, {"n_groups": 0}, {"headdim": True}]
    for content in odd:
        if isinstance(content, dict):
            content = json.dumps(fields | content)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ValueError, match=r"config.json"):
            load_pretrained(tmp_path)


def test_an_older_checkpoint_of_another_format_is_replaced(tmp_path: Path) -> None:
    old, new = HybridLM(HybridConfig(**MAMBA)), HybridLM(HybridConfig(**MAMBA))
    for first, second in (("state-spaces", "hf-mamba2"), ("hf-mamba2", "state-spaces"), ("native", "hf-mamba2")):
        save_pretrained(old, tmp_path, format=first)
        save_pretrained(new, tmp_path, format=second)
        assert torch.equal(load_pretrained(tmp_path).norm.weight, new.norm.weight)
        assert torch.equal(load_pretrained(tmp_path).embedding.weight, new.embedding.weight)
        assert len(files_of(tmp_path)) == 2
