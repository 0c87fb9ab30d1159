"""The one-position steps in C against the same in torch and fp64, and what happens where C cannot be had."""

from __future__ import annotations

import math
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops import _native
from model.ops.causal_conv1d import causal_conv1d_step
from model.ops.gated_rmsnorm import RowNorm, gated_rmsnorm
from model.ops.row_linear import row_linear
from model.ops.ssd import ssd_step
from tests.model.compare import assert_agree

ROOT = Path(__file__).parents[3]
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("cc") is None, reason="C needs a compiler")


def ssd_inputs(draw: random.Random) -> tuple[list[Tensor], dict]:
    batch, ngroups = draw.randint(1, 20), draw.choice([1, 2, 8])
    nheads, headdim, dstate = ngroups * draw.randint(1, 3), draw.randint(1, 70), draw.choice([1, 5, 16, 64, 128])
    packed = torch.randn(batch, nheads * headdim + 2 * ngroups * dstate + nheads + 3)  # as a projection leaves them
    x, B, C, dt, _ = packed.split([nheads * headdim, ngroups * dstate, ngroups * dstate, nheads, 3], dim=1)
    B, C = B.view(batch, ngroups, dstate), C.view(batch, ngroups, dstate)
    state = torch.randn(batch, nheads, headdim, dstate)
    options = {
        "D": torch.randn(nheads) if draw.random() < 0.7 else None,
        "dt_bias": torch.randn(nheads) if draw.random() < 0.7 else None,
        "dt_softplus": draw.random() < 0.7,
        "dt_limit": draw.choice([(0.0, math.inf), (0.2, 0.9)]),
    }
    return [x.view(batch, nheads, headdim), 10 * dt, -torch.rand(nheads) * 5, B, C, state], options


@NEEDS_COMPILER
@pytest.mark.parametrize("threads", [1, 2])
def test_ssd_step_is_that_of_torch(threads: int) -> None:
    before, draw = torch.get_num_threads(), random.Random(0)
    torch.set_num_threads(threads)
    try:
        for _ in range(60):
            inputs, options = ssd_inputs(draw)
            doubles = [tensor.double() for tensor in inputs]
            double_options = {k: v.double() if isinstance(v, Tensor) else v for k, v in options.items()}
            expected = ssd_step(*doubles, **double_options)
            ours = ssd_step(*inputs, **options, backend="native")
            assert ours[1] is inputs[5]
            assert_agree(ours, expected, 1e-5)  # of fp32: a sum of up to 128 products
    finally:
        torch.set_num_threads(before)


@NEEDS_COMPILER
def test_rows_do_not_depend_on_threads_nor_on_each_other() -> None:
    inputs, options = ssd_inputs(random.Random(3))
    whole, _ = ssd_step(*(tensor.clone() for tensor in inputs), **options, backend="native")
    for row in range(len(whole)):
        alone = [tensor if tensor.dim() == 1 else tensor[row : row + 1].clone() for tensor in inputs]
        assert torch.equal(ssd_step(*alone, **options, backend="native")[0][0], whole[row])


@NEEDS_COMPILER
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e4, -1e4])
def test_what_is_not_finite_in_torch_is_not_hidden(value: float) -> None:
    inputs, options = ssd_inputs(random.Random(1))
    inputs[1] = torch.full_like(inputs[1], value)
    copies = [tensor.clone() for tensor in inputs]
    ours, theirs = ssd_step(*inputs, **options, backend="native"), ssd_step(*copies, **options, backend="torch")
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine.isfinite(), other.isfinite())


@NEEDS_COMPILER
def test_conv_step_is_that_of_torch() -> None:
    draw = random.Random(0)
    for _ in range(40):
        batch, channels, width = draw.randint(1, 20), draw.randint(1, 3000), draw.randint(1, 5)
        x = torch.randn(batch, channels + 3)[:, :channels]
        state = torch.randn(batch, width, channels)[:, 1:]
        weight, bias = torch.randn(channels, width), torch.randn(channels) if draw.random() < 0.7 else None
        kept = state.clone()
        for activation in ("silu", None):
            doubles = [tensor if tensor is None else tensor.double() for tensor in (x, state, weight, bias)]
            expected = causal_conv1d_step(*doubles, activation=activation)
            ours = causal_conv1d_step(x, state, weight, bias, activation=activation, backend="native")
            assert_agree(ours[:1], expected[:1], 1e-6)
            assert torch.equal(ours[1], expected[1].float())
        assert torch.equal(state, kept)


@NEEDS_COMPILER
@pytest.mark.parametrize("norm_before_gate", [False, True])
def test_norm_of_rows_is_that_of_the_reference(norm_before_gate: bool) -> None:
    draw = random.Random(0)
    for _ in range(40):
        rows, groups, group_size = draw.randint(1, 20), draw.choice([1, 2, 8]), draw.randint(1, 600)
        d = groups * group_size
        x, gate, _ = torch.randn(rows, 2 * d + 3).split([d, d, 3], dim=1)
        weight, eps = torch.randn(d), draw.choice([1e-5, 1e-3])
        options = {"eps": eps, "group_size": group_size, "norm_before_gate": norm_before_gate}
        ours = RowNorm(weight, **options, backend="native")
        for opening in (None, gate, 100 * gate):
            doubles = {"gate": None if opening is None else opening.double(), "backend": "reference"}
            expected = gated_rmsnorm(x.double(), weight.double(), **options, **doubles)
            assert_agree([ours(x, opening)], [expected], 2e-6)


@NEEDS_COMPILER
def test_silu_in_c_is_that_of_torch_over_the_whole_range() -> None:
    x = torch.cat([torch.linspace(-100, 100, 200_001), torch.tensor([0.0, -0.0, math.inf, math.nan, 1e30, -1e30])])
    taps, state = torch.ones(len(x), 1), torch.empty(1, 0, len(x))
    ours = causal_conv1d_step(x.unsqueeze(0), state, taps, backend="native")[0][0]
    expected = F.silu(x.double())
    assert torch.equal(ours.isfinite(), expected.isfinite())
    # 4 units in the last place of the result, or what is below fp32's normal range of exp
    error = (ours.double() - expected).abs()
    assert bool((error[:-4] <= 5e-7 * expected.abs()[:-4] + 1e-35).all())


@NEEDS_COMPILER
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_times_weights_is_linear(threads: int) -> None:
    before, draw = torch.get_num_threads(), random.Random(0)
    torch.set_num_threads(threads)
    try:
        for _ in range(100):
            rows, ins = draw.choice([1, 2, 3, 8, 9, 16, 17, draw.randint(1, 60)]), draw.randint(1, 300)
            outs = [draw.randint(1, 200) for _ in range(draw.randint(1, 4))]
            weights, x = [torch.randn(out, ins) for out in outs], torch.randn(ins, rows).t()
            biases = [torch.randn(out) if draw.random() < 0.5 else None for out in outs]
            pairs = [
                F.linear(x.double(), weight.double(), None if bias is None else bias.double())
                for weight, bias in zip(weights, biases, strict=True)
            ]
            for backend in ("native", "torch"):
                assert_agree([row_linear(weights, biases, backend=backend)(x)], [torch.cat(pairs, 1)], 3e-6)
    finally:
        torch.set_num_threads(before)


@NEEDS_COMPILER
def test_weights_are_read_where_they_are() -> None:
    layer, x = torch.nn.Linear(64, 100), torch.randn(3, 64)
    ours = row_linear([layer.weight], [layer.bias], backend="native")
    with torch.no_grad():
        layer.weight.mul_(2)
        assert_agree([ours(x)], [layer(x)], 1e-6)
    kept = layer(x).detach()
    layer.to(torch.float64)  # the parameter has other memory from now on; what it had is still held
    assert_agree([ours(x)], [kept], 1e-6)


@NEEDS_COMPILER
@pytest.mark.parametrize("setting", ["torch.set_default_dtype(torch.float64)", "torch.set_default_device('meta')"])
def test_the_defaults_of_torch_make_no_difference(tmp_path: Path, setting: str) -> None:
    for first in ("step(*tensors)", ""):  # looked for before, or after
        code = f"{first}\n{setting}\ny, _ = step(*tensors, backend='native')\nprint(y.dtype, y.device)"
        done = run(code, XDG_CACHE_HOME=str(tmp_path))
        assert done.stdout.strip() == "torch.float32 cpu", done.stderr


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_shapes_that_do_not_fit_are_an_error(backend: str) -> None:
    for place, shape in enumerate([(2, 4, 3), (2, 4), (4,), (2, 2, 5), (2, 2, 5), (2, 4, 3, 5)]):
        inputs = [torch.randn(s) for s in [(2, 4, 3), (2, 4), (4,), (2, 2, 5), (2, 2, 5), (2, 4, 3, 5)]]
        for d in range(len(shape)):
            wrong = [size + (i == d) for i, size in enumerate(shape)]
            bad = [*inputs[:place], torch.randn(wrong), *inputs[place + 1 :]]
            with pytest.raises(ValueError, match="shapes do not fit together"):
                ssd_step(*bad, backend=backend)
    tensors = [torch.randn(shape) for shape in ((2, 5), (2, 3, 5), (5, 4), (5,))]
    for place, wrong in ((0, (1, 5)), (1, (2, 4, 5)), (2, (6, 4)), (3, (4,))):
        bad = [*tensors[:place], torch.randn(wrong), *tensors[place + 1 :]]
        with pytest.raises(ValueError, match="expected"):
            causal_conv1d_step(*bad, backend=backend)
    with pytest.raises(ValueError, match=r"x is \(3, 7\)|size mismatch|must match"):
        row_linear([torch.randn(4, 6)], [None])(torch.randn(3, 7))


def test_torch_takes_what_c_does_not() -> None:
    inputs, options = ssd_inputs(random.Random(2))
    halves = [tensor.bfloat16() for tensor in inputs[:5]]
    for arguments in ([*halves, inputs[5]], [inputs[0].clone().requires_grad_(), *inputs[1:5], inputs[5].clone()]):
        ssd_step(*arguments, **options)
        with pytest.raises(ValueError, match="'native': it needs a C compiler, and fp32 tensors"):
            ssd_step(*arguments, **options, backend="native")
    with pytest.raises(ValueError, match="backend is 'c': choose"):
        ssd_step(*inputs, **options, backend="c")


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since a kernel is looked for once."""
    code = (
        "import torch; from model.ops.causal_conv1d import causal_conv1d_step as step\n"
        "tensors = [torch.ones(shape) for shape in ((2, 5), (2, 3, 5), (5, 4))]\n" + code
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"} | variables,
    )


@pytest.mark.parametrize(
    ("compiler", "warning"),
    [
        ("no-such-compiler", ""),
        ("false", "UserWarning: step.c could not be compiled"),
        ("g++ -x c++", "UserWarning: step.c could not be compiled"),  # its names are not C's
    ],
)
def test_without_a_compiler_torch_goes_on(tmp_path: Path, compiler: str, warning: str) -> None:
    done = run("print(step(*tensors, activation=None)[0].sum().item())", CC=compiler, XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout.strip() == "40.0"
    assert warning in done.stderr
    assert bool(warning) == ("Warning" in done.stderr)


@NEEDS_COMPILER
def test_it_is_compiled_once_and_not_needed_where_the_cache_cannot_be_written(tmp_path: Path) -> None:
    for _ in range(2):
        done = run("print(step(*tensors, backend='native')[0].shape)", XDG_CACHE_HOME=str(tmp_path))
        assert done.stdout.strip() == "torch.Size([2, 5])", done.stderr
    (library,) = tmp_path.rglob("*.so")
    assert [file.name for file in library.parent.iterdir()] == [library.name]
    (tmp_path / "file").touch()
    done = run("print(step(*tensors)[0].shape)", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert done.stdout.strip() == "torch.Size([2, 5])"
    assert "could not be compiled" in done.stderr


def test_a_kernel_that_computes_something_else_is_not_used() -> None:
    good = [torch.ones(3), torch.ones(2, 2)]
    assert _native.agree("step", good, [tensor * (1 + 1e-6) for tensor in good])
    with pytest.warns(UserWarning, match="the compiled step does not compute what torch computes"):
        assert not _native.agree("step", good, [good[0], good[1] * 1.01])
    with pytest.warns(UserWarning, match="does not compute"):
        assert not _native.agree("step", [good[0] * math.nan, good[1]], good)
