"""The chunked SSD against the sequential recurrence."""

import math
import random

import pytest
import torch
from torch import Tensor

from model.ops._common import Backend
from model.ops.ssd import ssd, ssd_step
from model.ops.ssd.torch import CPU_CHUNK
from tests.model.compare import assert_agree, outputs_and_gradients

CHUNK = 8


def make_inputs(
    device: torch.device,
    batch: int = 2,
    seqlen: int = 3 * CHUNK + 5,
    nheads: int = 4,
    headdim: int = 3,
    ngroups: int = 2,
    dstate: int = 5,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, device=device)

    inputs = {
        "x": normal(batch, seqlen, nheads, headdim),
        "dt": normal(batch, seqlen, nheads),
        "A": -4 * torch.rand(nheads, dtype=dtype, device=device) - 0.1,
        "B": normal(batch, seqlen, ngroups, dstate),
        "C": normal(batch, seqlen, ngroups, dstate),
        "D": normal(nheads),
        "dt_bias": normal(nheads),
        "initial_state": normal(batch, nheads, headdim, dstate),
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def make_documents(batch: int, seqlen: int, device: torch.device) -> Tensor:
    return torch.randint(0, 4, (batch, seqlen), device=device, dtype=torch.int32).sort(dim=1).values


def both(inputs: dict[str, Tensor], **options: object) -> tuple[list[Tensor], list[Tensor]]:
    def run(backend: str) -> list[Tensor]:
        def call() -> Tensor | tuple[Tensor, ...]:
            return ssd(**inputs, **options, backend=backend)

        return outputs_and_gradients(call, list(inputs.values()))

    return run("torch"), run("reference")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ngroups", [1, 2])
@pytest.mark.parametrize("seqlen", [1, CHUNK - 1, CHUNK, CHUNK + 1, 4 * CHUNK, 5 * CHUNK + 3])
def test_agrees_with_the_recurrence(device: torch.device, seqlen: int, ngroups: int, packed: bool) -> None:
    inputs = make_inputs(device, seqlen=seqlen, ngroups=ngroups)
    seq_idx = make_documents(2, seqlen, device) if packed else None
    assert_agree(*both(inputs, dt_softplus=True, chunk_size=CHUNK, seq_idx=seq_idx, return_final_state=True), 1e-10)


@pytest.mark.parametrize("absent", [("D",), ("dt_bias",), ("initial_state",), ("D", "dt_bias", "initial_state")])
def test_optional_inputs(device: torch.device, absent: tuple[str, ...]) -> None:
    inputs = {name: tensor for name, tensor in make_inputs(device).items() if name not in absent}
    assert_agree(*both(inputs, dt_softplus=True, chunk_size=CHUNK), 1e-10)


@pytest.mark.parametrize("dt_softplus", [False, True])
@pytest.mark.parametrize("dt_limit", [(0.0, math.inf), (0.2, 0.9), (0.5, 0.5)])
def test_step_size_limits(device: torch.device, dt_limit: tuple[float, float], dt_softplus: bool) -> None:
    inputs = make_inputs(device)
    assert_agree(
        *both(inputs, dt_softplus=dt_softplus, dt_limit=dt_limit, chunk_size=CHUNK, return_final_state=True), 1e-10
    )


@pytest.mark.parametrize("only", [0, 1])
def test_one_output_unused(device: torch.device, only: int) -> None:
    inputs = make_inputs(device)

    def run(backend: str) -> list[Tensor]:
        def call() -> Tensor:
            return ssd(**inputs, dt_softplus=True, chunk_size=CHUNK, return_final_state=True, backend=backend)[only]

        return outputs_and_gradients(call, list(inputs.values()))

    assert_agree(run("torch"), run("reference"), 1e-10)


def test_random_shapes(device: torch.device) -> None:
    draw = random.Random(0)
    for _ in range(20):
        ngroups = draw.choice([1, 2, 3])
        sizes = {
            "batch": draw.randint(1, 3),
            "seqlen": draw.randint(1, 40),
            "nheads": ngroups * draw.randint(1, 3),
            "headdim": draw.randint(1, 9),
            "dstate": draw.randint(1, 9),
        }
        inputs = make_inputs(device, ngroups=ngroups, **sizes)
        packed = draw.random() < 0.5
        seq_idx = make_documents(sizes["batch"], sizes["seqlen"], device) if packed else None
        options = {"chunk_size": draw.randint(1, 16), "seq_idx": seq_idx, "dt_softplus": True}
        assert_agree(*both(inputs, **options, return_final_state=True), 1e-10)


@pytest.mark.parametrize("ngroups", [1, 8])
def test_real_sizes_in_fp32(device: torch.device, ngroups: int) -> None:
    inputs = make_inputs(
        device, 1, 2 * CPU_CHUNK + 3, nheads=8, headdim=64, ngroups=ngroups, dstate=128, dtype=torch.float32
    )
    assert_agree(*both(inputs, dt_softplus=True, return_final_state=True), 2e-5)


def test_chunk_size_does_not_matter(device: torch.device) -> None:
    inputs = make_inputs(device, seqlen=50)
    expected = ssd(**inputs, dt_softplus=True, chunk_size=50)
    for chunk_size in (1, 7, 16, 64, 1000):
        assert_agree([ssd(**inputs, dt_softplus=True, chunk_size=chunk_size)], [expected], 1e-12)


def test_final_state_continues(device: torch.device) -> None:
    inputs = make_inputs(device, seqlen=30)
    whole, final = ssd(**inputs, dt_softplus=True, chunk_size=CHUNK, return_final_state=True)
    y, state = [], inputs["initial_state"]
    for part in (slice(0, 13), slice(13, 14), slice(14, 30)):
        pieces = {name: t[:, part] if name in ("x", "dt", "B", "C") else t for name, t in inputs.items()}
        pieces["initial_state"] = state
        piece, state = ssd(**pieces, dt_softplus=True, chunk_size=CHUNK, return_final_state=True)
        y.append(piece)
    assert_agree([torch.cat(y, dim=1), state], [whole, final], 1e-12)


@pytest.mark.parametrize("dt_limit", [(0.0, math.inf), (0.2, 0.9)])
@pytest.mark.parametrize("ngroups", [1, 2])
def test_steps_equal_the_whole(device: torch.device, ngroups: int, dt_limit: tuple[float, float]) -> None:
    inputs = {name: tensor.detach() for name, tensor in make_inputs(device, ngroups=ngroups).items()}
    options = {"dt_softplus": True, "dt_limit": dt_limit}
    whole, final = ssd(**inputs, **options, return_final_state=True)
    state = inputs.pop("initial_state")
    fixed = {name: inputs[name] for name in ("D", "dt_bias")}
    for t in range(whole.shape[1]):
        x, dt, B, C = (inputs[name][:, t] for name in ("x", "dt", "B", "C"))
        y, state = ssd_step(x, dt, inputs["A"], B, C, state, **fixed, **options)
        assert_agree([y], [whole[:, t]], 1e-12)
    assert_agree([state], [final], 1e-12)


def test_documents_do_not_see_each_other(device: torch.device) -> None:
    inputs = make_inputs(device, seqlen=30)
    seq_idx = (torch.arange(30, device=device) >= 11).int().expand(2, -1)
    y = ssd(**inputs, dt_softplus=True, chunk_size=CHUNK, seq_idx=seq_idx)
    gradients = torch.autograd.grad(y[:, 11:].square().sum(), [inputs["x"], inputs["dt"], inputs["initial_state"]])
    assert not gradients[0][:, :11].any()
    assert gradients[1][:, :11].abs().max() < 1e-12 * gradients[1].abs().max()  # what its sums leave of zero
    assert not gradients[2].any()


@pytest.mark.parametrize("scale", [1e-6, 30.0, 1e4])
def test_extreme_steps_are_finite(device: torch.device, scale: float) -> None:
    inputs = make_inputs(device, seqlen=40, dtype=torch.float32)
    inputs["dt"] = (inputs["dt"].detach() * scale).requires_grad_()
    inputs["A"] = (inputs["A"].detach() * scale).requires_grad_()

    def call() -> tuple[Tensor, ...]:
        return ssd(**inputs, dt_softplus=True, chunk_size=CHUNK, return_final_state=True)

    assert all(tensor.isfinite().all() for tensor in outputs_and_gradients(call, list(inputs.values())))


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("case", ["long", "one long", "one very long", "fast"])
def test_extreme_steps_are_right(device: torch.device, case: str, backend: Backend) -> None:
    """Sums of decays keep the small terms beside large ones, and what cancels in their gradients does."""
    inputs = {name: tensor.detach() for name, tensor in make_inputs(device, seqlen=70, dtype=torch.float32).items()}
    A = inputs["A"]
    if case == "long":  # the kernels of a GPU sum in fp32 what cancels in the gradient of A
        inputs["dt"] *= 1e3 if device.type == "cuda" and backend == "auto" else 1e4
    elif case == "fast":
        inputs["A"] = 1e20 * A
    else:
        inputs["dt"] = torch.full_like(inputs["dt"], 0.1)
        inputs["dt"][:, 33] = 1e30 if "very" in case else 1e10

    def run(path: Backend) -> list[Tensor]:
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
        options = {"dt_softplus": True, "return_final_state": True, "backend": path}
        return outputs_and_gradients(lambda: ssd(**leaves, **options), list(leaves.values()))

    assert_agree(run(backend), run("reference"), 1e-3)


def test_gradcheck(device: torch.device) -> None:
    inputs = make_inputs(device, batch=1, seqlen=5, nheads=2, headdim=2, ngroups=1, dstate=2)
    names = list(inputs)

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, tensors, strict=True))
        return ssd(**named, dt_softplus=True, chunk_size=2, return_final_state=True)

    assert torch.autograd.gradcheck(call, tuple(inputs.values()))


def test_bitwise_repeatable(device: torch.device) -> None:
    inputs = make_inputs(device, seqlen=100, headdim=16, dstate=16, dtype=torch.float32)

    def run() -> list[Tensor]:
        return outputs_and_gradients(lambda: ssd(**inputs, dt_softplus=True), list(inputs.values()))

    assert all(torch.equal(first, second) for first, second in zip(run(), run(), strict=True))


@pytest.mark.parametrize("packed", [False, True])
def test_operator(device: torch.device, packed: bool) -> None:
    inputs = make_inputs(device, dtype=torch.float32)
    seq_idx = make_documents(2, inputs["x"].shape[1], device) if packed else None
    arguments = (*inputs.values(), seq_idx, True, 0.0, math.inf, CHUNK, "torch")
    torch.library.opcheck(torch.ops.mamba2.ssd.default, arguments)


@pytest.mark.parametrize("only", [0, 1])
def test_any_order_in_memory(device: torch.device, only: int) -> None:
    inputs = make_inputs(device, seqlen=CHUNK)  # a chunk is a view of it
    turned = {
        name: t.detach().transpose(1, -1).contiguous().transpose(1, -1).requires_grad_()
        for name, t in inputs.items()
        if t.dim() > 1
    }

    def run(**given: Tensor) -> list[Tensor]:
        return outputs_and_gradients(
            lambda: ssd(**given, return_final_state=True, chunk_size=CHUNK)[only], list(given.values())
        )

    assert_agree(run(**inputs), run(**inputs | turned), 1e-12)


def test_errors_name_the_argument(device: torch.device) -> None:
    inputs = make_inputs(device)
    with pytest.raises(ValueError, match=r"dt has shape \(2, 29, 3\), expected \(2, 29, 4\)"):
        ssd(**{**inputs, "dt": inputs["dt"][..., :3]})
    with pytest.raises(ValueError, match="backend is 'cuda'"):
        ssd(**inputs, backend="cuda")
    with pytest.raises(ValueError, match="4 heads do not divide into 3 groups"):
        ssd(**{**inputs, "B": inputs["B"][:, :, [0, 0, 0]], "C": inputs["C"][:, :, [0, 0, 0]]})
