"""A stranger's files: whatever is in them, they load or end in an error that names the file; nothing of them is run."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import HybridConfig, HybridLM, load_pretrained, save_pretrained
from model.checkpoints import FORMATS, load_config
from model.checkpoints.files import TRACKER

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
    with pytest.raises(ValueError, match=f"model.safetensors: {key} is I64, expected floating point"):
        load_pretrained(path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.bool, torch.complex64])
@pytest.mark.parametrize("format", ["native", "state-spaces"])
def test_only_floating_point_of_sixteen_bits_or_more_is_a_weight(
    format: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    save_pretrained(HybridLM(HybridConfig(**MAMBA)), tmp_path, format=format)
    if format == "native":
        tensors = {name: tensor.to(dtype) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
        save_file(tensors, tmp_path / "model.safetensors")
    else:
        pickled = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
        torch.save({name: tensor.to(dtype) for name, tensor in pickled.items()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="expected floating point"):
        load_pretrained(tmp_path)


ODD_TENSORS: dict[str, dict[Any, Any]] = {
    "sparse": {"backbone.norm_f.weight": torch.ones(16).to_sparse()},
    "on meta": {"backbone.norm_f.weight": torch.ones(16, device="meta")},
    "overlapping": {"backbone.norm_f.weight": torch.ones(1).expand(16)},
    "no string": {1: torch.ones(16)},
}


@pytest.mark.parametrize("odd", ODD_TENSORS)
@pytest.mark.parametrize("format", ["state-spaces", "megatron"])
def test_odd_things_in_a_pickle_are_named(format: str, odd: str, tmp_path: Path) -> None:
    save_pretrained(HybridLM(HybridConfig(**MODELS[format])), tmp_path, format=format)
    file = max(files_of(tmp_path), key=lambda file: file.stat().st_size)
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(file, weights_only=True)
    (content["model"] if format == "megatron" else content).update(ODD_TENSORS[odd])
    torch.save(content, file)
    shown = {"no string": r"\[1\] among its keys are no strings"}.get(odd, "norm_f.weight (is a|has overlapping)")
    with pytest.raises(ValueError, match=f"{file.name}: .*{shown}"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("changes", [{"vocab_size": 10**12}, {"d_model": 10**30}, {"d_ff": 10**18}])
def test_sizes_that_the_tensors_do_not_have_are_refused_before_they_are_allocated(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    save_pretrained(HybridLM(HybridConfig(**PAIRS)), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["vocab_size", "head_dim"])
def test_a_model_that_cannot_be_made_is_blamed_on_the_configuration(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever bounds the configuration has of its own."""
    save_pretrained(HybridLM(HybridConfig(**PAIRS)), tmp_path)
    config = load_config(tmp_path)
    object.__setattr__(config, name, 10**30)
    monkeypatch.setattr("model.checkpoints._read_config", lambda directory: (FORMATS["native"], config))
    with pytest.raises(ValueError, match=r"config.json: no model has these sizes"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("format", ["native", "state-spaces", "megatron"])
def test_what_is_no_regular_file_is_refused_without_waiting(format: str, tmp_path: Path) -> None:
    save_pretrained(HybridLM(HybridConfig(**MODELS[format])), tmp_path, format=format)
    for file in files_of(tmp_path):
        if file.name == TRACKER:  # one that is no file is not looked at
            continue
        content = file.read_bytes()
        for make, remove in ((os.mkfifo, os.unlink), (os.mkdir, os.rmdir)):
            file.unlink()
            make(file)
            with pytest.raises(ValueError, match=f"{file.name} is no regular file"):
                load_pretrained(tmp_path)
            remove(file)
            file.write_bytes(content)


def test_a_configuration_that_cannot_be_opened_or_has_endless_digits_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.symlink_to(file)
    with pytest.raises(ValueError, match=r"config.json: cannot be read"):
        load_pretrained(tmp_path)
    file.unlink()
    file.write_text('{"vocab_size": ' + "9" * 10_000 + "}")
    with pytest.raises(ValueError, match=r"config.json: cannot be read"):
        load_pretrained(tmp_path)


TIED = {
    "hf-mamba2": "tie_word_embeddings",
    "hf-bamba": "tie_word_embeddings",
    "hf-granite": "tie_word_embeddings",
    "state-spaces": "tie_embeddings",
}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("format", TIED)
def test_a_stored_head_that_is_not_the_embedding_is_not_dropped(
    format: str, dtype: torch.dtype | None, tmp_path: Path
) -> None:
    model = HybridLM(HybridConfig(**{**MODELS[format], "tie_embeddings": False}))
    file = tmp_path / "config.json"
    for equal in (False, True):
        if equal:
            with torch.no_grad():
                model.embedding.weight[0, 0] = math.nan  # bit for bit: this is alike
                model.head.weight.copy_(model.embedding.weight)
        save_pretrained(model, tmp_path, format=format)
        fields = json.loads(file.read_text())
        assert fields[TIED[format]] is False
        file.write_text(json.dumps(fields | {TIED[format]: True}))
        if equal:
            assert load_pretrained(tmp_path, dtype=dtype).head is None
        else:
            with pytest.raises(ValueError, match=r"model.*: lm_head.weight differs from the embedding.*: untie it"):
                load_pretrained(tmp_path, dtype=dtype)


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
