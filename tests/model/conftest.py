"""Shared by the model's tests, which run on a CPU or a GPU machine."""

import os

import pytest
import torch

from model import HybridConfig

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic cuBLAS asks for
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is first imported, whoever does that
torch.set_num_threads(1)  # the tests' tensors are too small to share between threads


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tiny() -> HybridConfig:
    return HybridConfig.preset("tiny")
