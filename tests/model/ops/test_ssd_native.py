"""The SSD in C against the recurrence in fp64."""

from __future__ import annotations

import ctypes
import os
import random
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.ops.ssd import native, ssd
from tests.model.compare import error, outputs_and_gradients

pytestmark = pytest.mark.skipif(not native.works(), reason="no C compiler here")

LENGTHS = [1, 2, native.LENGTH - 1, native.LENGTH, native.LENGTH + 1, 3 * native.LENGTH - 5]


def make(draw: random.Random, dtype: torch.dtype, extreme: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Inputs of random sizes, those that the model keeps in fp32 in fp32; and options."""
    batch, seqlen, groups = draw.randint(1, 3), draw.choice(LENGTHS), draw.choice([1, 2, 3])
    heads, headdim, dstate = groups * draw.randint(1, 3), draw.choice([1, 7, 8, 30, 64]), draw.choice([3, 16, 65, 128])
    scale = 50.0 if extreme else 1.0

    def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape).to(dtype)

    inputs = {
        "x": normal(batch, seqlen, heads, headdim),
        "dt": scale * normal(batch, seqlen, heads),
        "A": -scale * torch.rand(heads) - 0.1,
        "B": normal(batch, seqlen, groups, dstate) / dstate**0.5,
        "C": normal(batch, seqlen, groups, dstate),
        "D": normal(heads, dtype=torch.float32),
        "dt_bias": normal(heads, dtype=torch.float32),
        "initial_state": normal(batch, heads, headdim, dstate, dtype=torch.float32),
    }
    for name in ("D", "dt_bias", "initial_state"):
        if draw.random() < 0.3:
            del inputs[name]
    options: dict[str, Any] = {"dt_softplus": draw.random() < 0.7, "return_final_state": True}
    if not options["dt_softplus"]:
        options["dt_limit"] = (0.1, 0.7)
    if draw.random() < 0.5:
        documents = torch.randint(0, 4, (batch, seqlen), dtype=torch.int32)
        options["seq_idx"] = documents.sort(dim=1).values
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}, options


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_outputs_and_gradients_are_those_of_the_recurrence(dtype: torch.dtype, extreme: bool) -> None:
    """At most twice the error of torch in that precision, and a few roundings more; torch's products are fp32."""
    draw = random.Random(0)
    rounding = {torch.float32: 4e-5, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-11}[dtype]
    for _ in range(25):
        inputs, options = make(draw, dtype, extreme)
        exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
        truths, ours, others = (
            outputs_and_gradients(
                lambda tensors=tensors, backend=backend, options=options: ssd(**tensors, **options, backend=backend),
                list(tensors.values()),
            )
            for tensors, backend in ((exact, "reference"), (inputs, "native"), (inputs, "torch"))
        )
        for name, truth, mine, other in zip(["y", "final", *inputs], truths, ours, others, strict=True):
            assert bool(mine.isfinite().all()), name
            # Under strong decay these are sums of many shares that cancel: torch too is seen 2e-2 off in fp32.
            loose = 5e-2 if extreme and name in ("A", "dt", "dt_bias") else 0.0
            # Sums over positions, here some of few numbers that nearly cancel: what is rounded are the numbers.
            loose += 2.0**-5 if dtype == torch.bfloat16 and name in ("A", "dt_bias") else 0.0
            if float(truth.abs().max()) < 1e-30:  # beyond fp32's normal numbers
                assert float(mine.abs().max()) < 1e-29
            else:
                most = 2 * error(other, truth) + rounding + loose
                assert error(mine, truth) <= most, f"{name}: {error(mine, truth):.1e}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_the_number_of_threads(dtype: torch.dtype) -> None:
    inputs, options = make(random.Random(3), dtype, False)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(outputs_and_gradients(lambda: ssd(**inputs, **options), list(inputs.values())))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_one_output_unused() -> None:
    inputs, options = make(random.Random(1), torch.float32, False)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    for only in (0, 1):
        ours, expected = (
            outputs_and_gradients(
                lambda tensors=tensors, backend=backend, only=only: ssd(**tensors, **options, backend=backend)[only],
                list(tensors.values()),
            )
            for tensors, backend in ((inputs, "native"), (exact, "reference"))
        )
        assert all(error(a, b) <= 2e-5 for a, b in zip(ours, expected, strict=True))


def test_inputs_need_not_be_contiguous() -> None:
    inputs, options = make(random.Random(2), torch.float32, False)
    strided = {name: tensor.detach().clone() for name, tensor in inputs.items()}
    for name in ("x", "B", "C", "dt"):
        strided[name] = torch.stack([strided[name]] * 2, dim=-1)[..., 0]
    assert torch.equal(ssd(**strided, **options)[0], ssd(**inputs, **options)[0])


@pytest.mark.parametrize("path", ["native", "native-bf16"])
def test_the_operator_keeps_its_promises(path: str) -> None:
    if path == "native-bf16" and not native.bf16_works():
        pytest.skip("this processor does not multiply bf16, or not in C")
    inputs, options = make(random.Random(0), torch.bfloat16, False)
    arguments = [inputs.get(name) for name in ("x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state")]
    torch.library.opcheck(
        torch.ops.mamba2.ssd.default, (*arguments, options.get("seq_idx"), True, 0.0, float("inf"), 64, path)
    )


def test_it_is_what_a_cpu_takes_except_in_fp64(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, _ = make(random.Random(0), torch.float32, False)
    assert torch.equal(ssd(**inputs), ssd(**inputs, backend="native"))
    assert not torch.equal(ssd(**inputs), ssd(**inputs, backend="torch"))
    doubles = {name: tensor.double() for name, tensor in inputs.items()}
    with pytest.raises(ValueError, match="backend is 'native': this operator has no such kernel"):
        ssd(**doubles, backend="native")
    monkeypatch.setattr(native.works, "answer", False)
    assert torch.equal(ssd(**inputs), ssd(**inputs, backend="torch"))


@pytest.mark.skipif(not native.bf16_works(), reason="this processor does not multiply bf16, or not in C")
def test_bf16_is_multiplied_as_such_if_all_factors_are_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, options = make(random.Random(0), torch.bfloat16, False)
    found = ssd(**inputs, **options)
    mixed = ssd(**inputs | {"B": inputs["B"].float()}, **options)
    monkeypatch.setattr(native.bf16_works, "answer", False)
    plain = ssd(**inputs, **options)
    assert not torch.equal(found[1], plain[1])
    assert torch.equal(mixed[1], plain[1])
    assert error(found[1], plain[1]) <= 2.0**-7


@pytest.mark.skipif(not native.bf16_works(), reason="this processor does not multiply bf16, or not in C")
def test_the_threads_of_torchs_products_keep_their_tiles() -> None:
    """torch's products configure the same tile registers: each finds them as it needs them, in turns."""
    inputs, options = make(random.Random(4), torch.bfloat16, False)
    a, b = torch.randn(70, 130).bfloat16(), torch.randn(130, 90).bfloat16()
    product, scanned = a @ b, ssd(**inputs, **options)[0]
    for _ in range(3):
        assert torch.equal(ssd(**inputs, **options)[0], scanned)
        assert torch.equal(a @ b, product)


def test_code_that_computes_something_else_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    right = native.forward

    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        y, *others = right(*arguments)
        return y * 1.01, *others

    monkeypatch.setattr(native, "forward", forward)
    with pytest.warns(UserWarning, match="the slower torch path is used"):
        assert not native.works.ask()


@pytest.mark.skipif(not native.bf16_works(), reason="this processor does not multiply bf16, or not in C")
def test_products_of_bf16_that_are_something_else_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    right = native.backward

    def backward(*arguments: Any) -> tuple[Tensor, ...]:
        dx, *others = right(*arguments)
        return dx * 1.1, *others

    monkeypatch.setattr(native, "backward", backward)
    with pytest.warns(UserWarning, match="C functions for torch.bfloat16 do not compute what torch does"):
        assert not native.bf16_works.ask()


@pytest.mark.skipif(native._multiplies_bf16() != 2, reason="this processor has no tiles (AMX), or Linux grants none")
def test_the_tiles_of_others_are_as_they_were(tmp_path: Path) -> None:
    """Torch's products may rely on the configuration that they made; this one is no kernel's."""
    source = tmp_path / "tiles.c"
    source.write_text(
        """void set(const unsigned char *to) { __asm__ volatile("ldtilecfg %0" : : "m"(*(const char (*)[64])to)); }
void get(unsigned char *in) { __asm__ volatile("sttilecfg %0" : "=m"(*(char (*)[64])in)); }
"""
    )
    command = [*shlex.split(os.environ.get("CC") or "cc"), "-O1", "-mamx-tile", "-shared", "-fPIC"]
    subprocess.run([*command, str(source), "-o", str(tmp_path / "tiles.so")], check=True)
    tiles = ctypes.CDLL(str(tmp_path / "tiles.so"))
    before, after, none = ((ctypes.c_ubyte * 64)() for _ in range(3))
    before[0] = 1
    for tile in range(3):
        before[16 + 2 * tile], before[48 + tile] = 32, 8
    x, maps, dt = torch.randn(1, 70, 2, 16).bfloat16(), torch.randn(1, 70, 1, 16).bfloat16(), torch.rand(1, 70, 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # this one
    try:
        tiles.set(before)
        ssd(x, dt, -torch.ones(2), maps, maps, backend="native")
        tiles.get(after)
    finally:
        tiles.set(none)
        torch.set_num_threads(threads)
    assert bytes(after) == bytes(before)
