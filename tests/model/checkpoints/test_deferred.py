"""What is written tensor by tensor is, byte for byte, what `torch.save` writes of the tensors themselves."""

from __future__ import annotations

import gc
import weakref
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model import HybridConfig, HybridLM
from model.checkpoints import FORMATS
from model.checkpoints.deferred import deferred
from model.checkpoints.keymap import Planned, plan
from tests.model.checkpoints.test_trust import MODELS


def planned(key: str, tensor: Tensor, *parameters: str) -> Planned:
    return Planned(key, parameters or (key,), tuple(tensor.shape), tensor.dtype, bool(parameters), lambda: tensor)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("format", ["state-spaces", "megatron"])
def test_the_bytes_of_torch_save(format: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = HybridLM(HybridConfig(**MODELS[format])).to(dtype)
    tensors = plan(model, FORMATS[format].entries(model))
    files = [tmp_path / name / "weights.pt" for name in ("ours", "theirs")]
    for file, content in zip(files, (deferred(tensors), {one.key: one.make() for one in tensors}), strict=True):
        file.parent.mkdir()
        torch.save({"model": content, "iteration": 0}, file)
    ours, theirs = (file.read_bytes() for file in files)
    assert ours == theirs
    assert zipfile.ZipFile(files[0]).testzip() is None
    loaded = torch.load(files[0], weights_only=True, mmap=True)["model"]
    assert all(torch.equal(loaded[one.key], one.make()) for one in tensors)


def test_the_same_parameters_are_stored_once(tmp_path: Path) -> None:
    values = torch.randn(7, 3)
    torch.save(deferred([planned("a", values), planned("b", values, "a")]), tmp_path / "weights.pt")
    loaded = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert torch.equal(loaded["a"], values)
    assert loaded["a"].data_ptr() == loaded["b"].data_ptr()


def test_a_part_of_a_buffer_is_stored_without_the_rest(tmp_path: Path) -> None:
    buffer = torch.randn(1000)
    part = buffer[300:310]
    torch.save(deferred([planned("part", part)]), tmp_path / "weights.pt")
    loaded = torch.load(tmp_path / "weights.pt", weights_only=True)["part"]
    assert torch.equal(loaded, part)
    assert loaded.untyped_storage().nbytes() == 40


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    memory: list[weakref.ref[Any]] = []
    alive = []

    def make(i: int) -> Tensor:
        gc.collect()
        alive.append(sum(one() is not None for one in memory))
        values = np.full(100, i, dtype=np.float32)
        memory.append(weakref.ref(values))  # which the tensor's storage holds
        return torch.from_numpy(values)

    plans = [Planned(str(i), (str(i),), (100,), torch.float32, False, partial(make, i)) for i in range(20)]
    stand_ins = deferred(plans)
    assert alive == []
    torch.save(stand_ins, tmp_path / "weights.pt")
    assert alive == [0] * 20
    assert torch.load(tmp_path / "weights.pt", weights_only=True)["7"].tolist() == [7.0] * 100
