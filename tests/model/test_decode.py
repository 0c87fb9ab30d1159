"""Decoding one position at a time: in C and in torch against the whole model in fp64, and where C cannot be had."""

from __future__ import annotations

import math
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model import HybridConfig, HybridLM
from model.decode import Decoder, native
from model.state import AttentionState, LayerState, MambaState, cat_layers
from tests.model.compare import assert_agree, error

ROOT = Path(__file__).parents[2]
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("cc") is None, reason="C needs a compiler")
BACKENDS = [pytest.param("native", marks=NEEDS_COMPILER), "torch"]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def any_config(draw: random.Random, **fixed: object) -> HybridConfig:
    """Sizes that are no multiple of anything, each option now and then."""
    groups, kv_heads = draw.choice([1, 2, 8]), draw.choice([1, 2, 3])
    headdim, rotary = draw.randint(1, 20), draw.random() < 0.5
    heads = groups * draw.randint(1, 3)
    sizes = {
        "pattern": draw.choice(["M", "*", "-", "M*-", "M-*M"]),
        "vocab_size": draw.randint(2, 300),
        "d_model": draw.randint(1, 90),
        "n_mamba_heads": heads,
        "headdim": headdim,
        "n_groups": groups,
        "d_state": draw.choice([1, 5, 16, 128]),
        "d_conv": draw.randint(2, 5),
        "n_heads": kv_heads * draw.choice([1, 2, 5]),
        "n_kv_heads": kv_heads,
        "head_dim": 2 * draw.randint(2, 20),
        "d_ff": draw.randint(1, 200),
        "mlp_activation": draw.choice(["gelu", "relu2", "silu-gated"]),
        "rope_theta": 100.0 if rotary else None,
        "attention_multiplier": draw.choice([None, 0.3]),
        "residual_multiplier": draw.choice([1.0, 0.4]),
        "embedding_multiplier": draw.choice([1.0, 3.0]),
        "logits_scaling": draw.choice([1.0, 2.0]),
        "norm_before_gate": draw.random() < 0.5,
        "dt_limit": draw.choice([(0.0, math.inf), (0.2, 0.9)]),
        "tie_embeddings": draw.random() < 0.5,
    }
    biases = {name: draw.random() < 0.5 for name in ("mamba_bias", "conv_bias", "attention_bias", "mlp_bias")}
    return HybridConfig(**sizes | biases | fixed)  # type: ignore[arg-type]


def any_model(draw: random.Random, **fixed: object) -> HybridLM:
    """Random weights, none of them at its neutral value."""
    torch.manual_seed(draw.randint(0, 999))
    model = HybridLM(any_config(draw, **fixed)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def decoded(model: HybridLM, ids: Tensor, read: int, backend: str) -> Tensor:
    """Logits (rows, tokens - read, vocabulary): the first `read` tokens at once, the others one by one."""
    state = model.new_state(len(ids))
    with torch.no_grad():
        states = list((model(ids[:, :read], state=state).state if read else state).layers)
    decoder = Decoder(model, backend=backend)  # type: ignore[arg-type]
    return torch.stack([decoder.step(ids[:, t], states) for t in range(read, ids.shape[1])], dim=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_by_one_is_the_whole_text_in_double_precision(backend: str, threads: int) -> None:
    draw = random.Random(0)
    for _ in range(60):
        model = any_model(draw)
        rows = draw.choice([1, 2, 3, 8, 9, 16, 17, 40])
        ids = torch.randint(0, model.config.vocab_size, (rows, draw.randint(2, 20)))
        read = draw.randint(1, ids.shape[1] - 1)
        ours = decoded(model, ids, read, backend)
        whole = model(ids).logits[:, read:]
        expected = model.double()(ids).logits[:, read:]
        # no worse than the same in fp32 at once; a norm over few channels makes rounding errors large
        assert_agree([ours], [expected], 3 * error(whole, expected) + 2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("context", [255, 256, 257, 1000])  # around the positions that one task attends to
def test_attention_over_a_long_context(backend: str, context: int, threads: int) -> None:
    model = any_model(random.Random(context), pattern="*-*", n_heads=6, n_kv_heads=2, rope_theta=1e4, head_dim=20)
    ids = torch.randint(0, model.config.vocab_size, (3, context + 2))
    assert_agree([decoded(model, ids, context, backend)], [model.double()(ids).logits[:, context:]], 2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_different_lengths_do_not_see_their_padding(backend: str) -> None:
    model = any_model(random.Random(1), pattern="M*-*", rope_theta=1e4)
    lengths, more = [1, 7, 300, 258], 3
    rows = [torch.randint(0, model.config.vocab_size, (1, length + more)) for length in lengths]
    states = [model(row[:, :-more], state=model.new_state(1)).state.layers for row in rows]
    together: list[LayerState] = cat_layers(states)
    decoder = Decoder(model, backend=backend)  # type: ignore[arg-type]
    for t in range(more, 0, -1):
        logits = decoder.step(torch.cat([row[:, -t] for row in rows]), together)
        for i, row in enumerate(rows):
            expected = model(row[:, : row.shape[1] - t + 1]).logits[:, -1]
            assert_agree([logits[i : i + 1]], [expected], 2e-5)


@NEEDS_COMPILER
def test_threads_make_no_difference_to_the_bits_nor_other_rows_beyond_rounding() -> None:
    model = any_model(random.Random(3), pattern="M*-", d_model=40, n_mamba_heads=16, headdim=16, n_groups=2, d_ff=900)
    ids = torch.randint(0, model.config.vocab_size, (6, 9))
    found = []
    for count in (1, 2, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        found.append(decoded(model, ids, 0, "native"))
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    alone = [decoded(model, row, 0, "native") for row in ids.split(1)]
    assert_agree([torch.cat(alone)], [found[0]], 1e-5)  # one row is summed in another order than several


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30])
@pytest.mark.parametrize("symbol", ["M", "*", "-"])
def test_what_is_not_finite_is_not_hidden(backend: str, value: float, symbol: str) -> None:
    model = any_model(random.Random(1), pattern=symbol, vocab_size=50, mlp_activation="relu2")
    model.embedding.weight[7, 0] = value
    ids = torch.tensor([[1, 7, 3], [1, 2, 3]])
    ours, expected = decoded(model, ids, 1, backend), model(ids).logits[:, 1:]
    assert torch.equal(ours[1].isfinite(), expected[1].isfinite())
    assert torch.equal(ours[0].isfinite().all(-1), expected[0].isfinite().all(-1))


@NEEDS_COMPILER
@pytest.mark.parametrize("activation", ["gelu", "relu2", "silu-gated"])
def test_activations_over_their_whole_range(activation: str) -> None:
    values = torch.cat([torch.linspace(-100, 100, 20_001), torch.tensor([0.0, -0.0, 1e4, -1e4])])
    config = HybridConfig(
        pattern="-", vocab_size=2, d_model=2, d_ff=len(values), mlp_activation=activation, mlp_bias=True, norm_eps=1e-9
    )
    model = HybridLM(config).requires_grad_(False)
    mixer = model.layers[0].mixer
    for projection in (mixer.up_proj, mixer.gate_proj or mixer.up_proj):  # nothing but their biases
        projection.weight.zero_()
        projection.bias.copy_(values)
    mixer.down_proj.bias.zero_()
    block, layer = model.layers[0], native.MLPLayer(model.layers[0])
    for column in torch.arange(0, len(values), 97):  # each of these values alone
        mixer.down_proj.weight.zero_()
        mixer.down_proj.weight[0, column] = 1
        expected = block.double()(torch.zeros(1, 1, 2, dtype=torch.float64))[1][0, 0, 0]
        ours = layer(torch.zeros(1, 2), None)[0][0, 0]
        block.float()
        layer = native.MLPLayer(block)
        assert abs(ours - expected) <= 5e-7 * abs(expected) + 1e-6  # a gelu's tail is a difference of near equals


@NEEDS_COMPILER
def test_weights_are_read_where_they_are() -> None:
    model = any_model(random.Random(5), pattern="M*-")
    ids = torch.randint(0, model.config.vocab_size, (2, 6))
    states = [list(model(ids[:, :5], state=model.new_state(2)).state.layers) for _ in range(2)]
    decoder = Decoder(model, backend="native")
    model.layers[0].mixer.z_proj.weight.mul_(2)
    model.layers[1].mixer.o_proj.weight.mul_(2)
    changed = Decoder(model, backend="torch").step(ids[:, 5], states[0])
    assert_agree([decoder.step(ids[:, 5], states[1])], [changed], 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_of_another_shape_is_an_error(backend: str) -> None:
    model = any_model(random.Random(2), pattern="M*")
    decoder = Decoder(model, backend=backend)  # type: ignore[arg-type]
    tokens = torch.zeros(2, dtype=torch.int64)
    for rows in (1, 3):
        with pytest.raises((ValueError, RuntimeError)):
            decoder.step(tokens, list(model.new_state(rows).layers))
    mamba, attention = model.new_state(2).layers
    assert isinstance(mamba, MambaState)
    assert isinstance(attention, AttentionState)
    wrong = MambaState(mamba.conv[:, :, 1:], mamba.ssm), MambaState(mamba.conv, mamba.ssm[:, :, :, :0])
    for state in wrong:
        with pytest.raises((ValueError, RuntimeError)):
            decoder.step(tokens, [state, attention])


@NEEDS_COMPILER
def test_any_layout_and_precision_of_a_state_is_taken() -> None:
    model = any_model(random.Random(6), pattern="M*")
    ids = torch.randint(0, model.config.vocab_size, (2, 9))
    mamba, attention = model(ids[:, :8], state=model.new_state(2)).state.layers
    strided = MambaState(mamba.conv.mT.contiguous().mT, mamba.ssm.transpose(1, 2).contiguous().transpose(1, 2))
    doubled = AttentionState(attention.buffer.double(), attention.length)
    full = AttentionState(attention.buffer[:, :, :, :8].transpose(0, 3).contiguous().transpose(0, 3), 8)
    decoder = Decoder(model, backend="native")
    expected = model(ids).logits[:, 8]
    for states in ([strided, doubled], [mamba, full]):
        assert_agree([decoder.step(ids[:, 8], list(states))], [expected], 1e-5)


def test_torch_takes_what_c_does_not() -> None:
    model = any_model(random.Random(7), pattern="M*-")
    ids = torch.randint(0, model.config.vocab_size, (2, 4))
    wrapped = HybridLM(model.config).eval()
    wrapped.layers[0].mixer.x_proj = torch.nn.Sequential(wrapped.layers[0].mixer.x_proj)
    for other in (model.double(), HybridLM(model.config).bfloat16(), wrapped):
        with pytest.raises(ValueError, match="'native': it needs a C compiler and plain weights"):
            Decoder(other, backend="native")
        tolerance = 0.05 if other.head_weight.dtype is torch.bfloat16 else 1e-5
        with torch.no_grad():
            assert_agree([decoded(other, ids, 2, "auto")], [other(ids).logits[:, 2:]], tolerance)
    with pytest.raises(ValueError, match="backend is 'c': choose"):
        Decoder(model, backend="c")  # type: ignore[arg-type]


PROGRAM = (
    "import torch; from model import HybridConfig, HybridLM; from model.decode import Decoder\n"
    "config = HybridConfig(pattern='M*-', vocab_size=9, d_model=8, headdim=4, d_state=4,\n"
    "                      n_heads=2, n_kv_heads=1, d_ff=8)\n"
    "def step(backend):\n"
    "    with torch.device('cpu'): model = HybridLM(config).float(); tokens = torch.tensor([1])\n"
    "    return Decoder(model, backend=backend).step(tokens, list(model.new_state(1).layers))\n"
)


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since C is looked for once."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"} | variables,
    )


@NEEDS_COMPILER
@pytest.mark.parametrize("setting", ["torch.set_default_dtype(torch.float64)", "torch.set_default_device('meta')"])
def test_the_defaults_of_torch_make_no_difference(tmp_path: Path, setting: str) -> None:
    for first in ("step('auto')", ""):  # looked for before, or after
        done = run(f"{first}\n{setting}\ny = step('native')\nprint(y.dtype, y.device)", XDG_CACHE_HOME=str(tmp_path))
        assert done.stdout.strip() == "torch.float32 cpu", done.stderr


@pytest.mark.parametrize(
    ("compiler", "warning"),
    [
        ("no-such-compiler", ""),
        ("false", "UserWarning: the C code for decoding could not be compiled"),
        ("g++ -x c++", "UserWarning: the C code for decoding could not be compiled"),  # its names are not C's
    ],
)
def test_without_a_compiler_torch_goes_on(tmp_path: Path, compiler: str, warning: str) -> None:
    done = run("print(step('auto').shape)", CC=compiler, XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout.strip() == "torch.Size([1, 9])", done.stderr
    assert warning in done.stderr
    assert bool(warning) == ("Warning" in done.stderr)


@NEEDS_COMPILER
def test_it_is_compiled_once_and_not_needed_where_the_cache_cannot_be_written(tmp_path: Path) -> None:
    for _ in range(2):
        done = run("print(step('native').shape)", XDG_CACHE_HOME=str(tmp_path))
        assert done.stdout.strip() == "torch.Size([1, 9])", done.stderr
    (library,) = tmp_path.rglob("*.so")
    assert [file.name for file in library.parent.iterdir()] == [library.name]
    library.write_bytes(b"damaged")
    done = run("print(step('native').shape)", XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout.strip() == "torch.Size([1, 9])", done.stderr
    (tmp_path / "file").touch()
    done = run("print(step('auto').shape)", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert done.stdout.strip() == "torch.Size([1, 9])"
    assert "could not be compiled" in done.stderr


@NEEDS_COMPILER
def test_code_that_computes_something_else_is_not_used(tmp_path: Path) -> None:
    done = run(
        "import model.decode.native as native; native.plain.Head.__call__ = lambda self, x: torch.ones(len(x), 41)\n"
        "print(native.works())",
        XDG_CACHE_HOME=str(tmp_path),
    )
    assert done.stdout.strip() == "False"
    assert "does not compute what torch computes" in done.stderr
