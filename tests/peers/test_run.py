"""The command, on made-up checkouts: what it replaces, what it leaves, and what it counts."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.peers.fla import PEER
from tests.peers.plugin import NotApplicableTests
from tests.peers.run import main

ROOT = Path(__file__).parents[2]


def write(checkout: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = checkout / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def run(peer: str, checkout: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.peers.run", peer, str(checkout), *arguments]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # which are slow to import
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


CAUSAL_CONV1D = {
    "pyproject.toml": '[tool.pytest.ini_options]\naddopts = "--an-option-of-theirs"\n',
    "causal_conv1d/__init__.py": "from causal_conv1d.causal_conv1d_interface import causal_conv1d_fn",
    "causal_conv1d/causal_conv1d_interface.py": """
        import torch
        import causal_conv1d_cuda

        def causal_conv1d_fn(x, weight):
            return causal_conv1d_cuda.forward(x, weight)

        def causal_conv1d_bwd(x):
            return causal_conv1d_cuda.backward(x)

        def causal_conv1d_ref(x, weight):
            padded = torch.nn.functional.pad(x, (weight.shape[1] - 1, 0))
            return torch.nn.functional.conv1d(padded, weight[:, None], groups=len(weight))
        """,
    "tests/conftest.py": """
        import pytest, torch

        @pytest.fixture
        def inputs():
            return torch.randn(2, 3, 5), torch.randn(3, 4)
        """,
    "tests/test_causal_conv1d.py": """
        import pytest, torch
        import causal_conv1d
        from causal_conv1d.causal_conv1d_interface import causal_conv1d_bwd, causal_conv1d_fn, causal_conv1d_ref

        @pytest.mark.parametrize("again", [0, 1])
        def test_agrees(inputs, again):
            assert causal_conv1d_fn is causal_conv1d.causal_conv1d_fn
            assert torch.allclose(causal_conv1d_fn(*inputs), causal_conv1d_ref(*inputs), atol=1e-5)

        def test_disagrees(inputs):
            assert torch.equal(causal_conv1d_fn(*inputs), 1 + causal_conv1d_ref(*inputs))

        def test_of_the_reference(inputs):
            assert causal_conv1d_ref(*inputs).shape == inputs[0].shape

        def test_of_compiled_code(inputs):
            causal_conv1d_bwd(inputs[0])

        def test_that_swallows(inputs):
            with pytest.raises(NotImplementedError):
                causal_conv1d_fn(*inputs, activation="relu")

        def test_causal_conv1d_get_states():
            raise AssertionError("not run")
        """,
}
MAMBA = {
    "mamba_ssm/__init__.py": "raise AssertionError('imports all of the project')",
    "mamba_ssm/ops/__init__.py": "",
    "mamba_ssm/ops/triton/__init__.py": "",
    "mamba_ssm/ops/triton/layernorm_gated.py": """
        def rmsnorm_fn(*args, **kwargs):
            raise AssertionError("theirs")

        class RMSNorm:
            def __call__(self, x, weight):
                return rmsnorm_fn(x, weight, None)

        def rms_norm_ref(x, weight, eps):
            return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight
        """,
    "mamba_ssm/ops/triton/selective_state_update.py": "",
    "mamba_ssm/module.py": "from mamba_ssm.ops.triton.layernorm_gated import RMSNorm",
    "tests/ops/triton/test_layernorm_gated.py": """
        import torch
        from mamba_ssm.module import RMSNorm
        from mamba_ssm.ops.triton.layernorm_gated import rms_norm_ref

        def test_norm():
            x, weight = torch.randn(3, 4), torch.randn(4)
            assert torch.allclose(RMSNorm()(x, weight), rms_norm_ref(x, weight, 1e-6), atol=1e-5)
        """,
    "tests/ops/triton/test_selective_state_update.py": """
        import torch
        from mamba_ssm.ops.triton.selective_state_update import selective_state_update

        def test_update_of_mamba1():
            state, x, dt, A, B = torch.randn(2, 3, 4), *torch.randn(2, 2, 3), torch.randn(3, 4), torch.randn(2, 4)
            selective_state_update(state, x, dt, A, B, B)
        """,
}
FLA = {
    "fla/__init__.py": "__version__ = '1.2'\nraise AssertionError('imports all of the project')",
    "fla/ops/__init__.py": "raise AssertionError('imports all of the project')",
    "fla/ops/simple_gla/__init__.py": "from .chunk import chunk_simple_gla",
    "fla/ops/simple_gla/chunk.py": "def chunk_simple_gla(*args, **kwargs):\n    raise AssertionError('theirs')",
    "tests/ops/test_simple_gla.py": """
        import torch
        from fla import __version__
        from fla.ops.simple_gla import chunk_simple_gla

        def test_chunk():
            assert __version__ == "1.2"
            q, k, v = torch.randn(3, 1, 1, 2, 4)
            o, _ = chunk_simple_gla(q, k, v, scale=1)
            assert torch.allclose(o, (q * k).sum(-1, keepdim=True) * v, atol=1e-5)

        def test_parallel():
            raise AssertionError("not run")
        """,
}


def test_causal_conv1d(tmp_path: Path) -> None:
    write(tmp_path, CAUSAL_CONV1D)
    before = sorted(tmp_path.rglob("*"))
    status, output = run("causal_conv1d", tmp_path)
    assert status == 1, output
    assert "1 failed, 2 passed, 4 skipped" in output
    assert "test_causal_conv1d.py::test_disagrees" in output
    for reason in (
        "1 x causal_conv1d_cuda.backward (compiled code of the peer)",
        "1 x the activation 'relu'",
        "1 x calls nothing that stands on our operators",
        "1 x causal_conv1d's kernel for the last inputs of packed sequences",
    ):
        assert reason in output
    assert sorted(tmp_path.rglob("*")) == before  # nothing is written into a checkout


def test_mamba_ssm(tmp_path: Path) -> None:
    write(tmp_path, MAMBA)
    status, output = run("mamba_ssm", tmp_path)
    assert status == 0, output
    assert "1 passed, 1 skipped" in output
    assert "1 x an A that differs along dstate (Mamba1's scan)" in output


def test_fla(tmp_path: Path) -> None:
    write(tmp_path, FLA)
    status, output = run("fla", tmp_path)
    assert status == 0, output
    assert "1 passed, 1 skipped" in output
    assert "1 x fla's own parallel kernel" in output


def test_nothing_applicable_is_no_success() -> None:
    plugin = NotApplicableTests(PEER)
    session = SimpleNamespace(exitstatus=0, config=SimpleNamespace(option=SimpleNamespace(collectonly=False)))
    plugin.pytest_sessionfinish(session)
    assert session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
    plugin.passed, session.exitstatus = 1, 0
    plugin.pytest_sessionfinish(session)
    assert session.exitstatus == 0


def test_a_folder_that_is_no_checkout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fla", str(tmp_path)])
    assert "is no checkout of fla: it has no folder fla" in capsys.readouterr().err
    (tmp_path / "fla").mkdir()
    with pytest.raises(SystemExit):
        main(["fla", str(tmp_path)])
    assert "has none of the tests that this runs: tests/ops/test_simple_gla.py" in capsys.readouterr().err
