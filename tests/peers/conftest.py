"""For the tests of the shims, which are small and run on a CPU in fp64."""

import pytest
import torch

torch.set_num_threads(1)  # the tensors are too small to share between threads


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
