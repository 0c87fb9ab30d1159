"""The rotation, in torch and in Triton (interpreted where there is no GPU), against complex numbers in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.ops.rotary import rotary, selfcheck
from model.ops.rotary.triton import sizes
from tests.model.compare import as_good, assert_agree, error, outputs_and_gradients
from tests.model.cover import label, pairwise

AXES = {
    "dtype": [torch.float32, torch.bfloat16, torch.float16],
    "length": ["one", "less", "tile", "more", "several"],
    "heads": [1, 3, 8],
    "channels": [(6, 3), (40, 16), (64, 32), (136, 24)],
    "packed": [False, True],
    "memory": ["positions", "heads", "gaps"],
}
COVERING = pairwise(AXES)
SMALL = {"dtype": torch.float32, "length": "one", "heads": 3, "channels": (6, 2), "packed": True, "memory": "positions"}


def make(case: dict, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """x with positions first in memory, as attention gives it, heads first, or with gaps; cosine and sine."""
    (head_dim, half), heads, batch = case["channels"], case["heads"], 2
    tile = sizes(heads, head_dim, half)["T"]
    seqlen = {"one": 1, "less": tile - 1, "tile": tile, "more": tile + 1, "several": 3 * tile + 5}[case["length"]]
    shapes = {
        "positions": (batch, seqlen, heads, head_dim),
        "heads": (batch, heads, seqlen, head_dim),
        "gaps": (batch, seqlen, heads, head_dim + 3),
    }
    x = torch.randn(shapes[case["memory"]], device=device).to(case["dtype"])[..., :head_dim]
    x = x if case["memory"] == "heads" else x.transpose(1, 2)
    angles = 6 * torch.rand((batch, seqlen, half) if case["packed"] else (seqlen, half), device=device)
    return x.requires_grad_(), 1.1 * angles.cos(), 1.1 * angles.sin()


def run(backend: str, x: Tensor, cos: Tensor, sin: Tensor) -> list[Tensor]:
    return outputs_and_gradients(lambda: rotary(x, cos, sin, backend=backend), [x])


@pytest.mark.parametrize("case", COVERING, ids=label)
def test_triton_rotates_as_complex_numbers_do(case: dict, device: torch.device) -> None:
    x, cos, sin = make(case, device)
    truth = run("reference", x.detach().double().requires_grad_(), cos, sin)
    for name, *values in zip(("y", "dx"), run("triton", x, cos, sin), run("torch", x, cos, sin), truth, strict=True):
        as_good(name, *values)


@pytest.mark.parametrize("case", [case for case in COVERING if case["dtype"] is torch.float32], ids=label)
def test_torch_rotates_as_complex_numbers_do(case: dict, device: torch.device) -> None:
    x, cos, sin = make(case, device)
    x = x.detach().double().requires_grad_()
    assert_agree(run("torch", x, cos, sin), run("reference", x, cos, sin), 1e-14)


def test_gradcheck(device: torch.device) -> None:
    x, cos, sin = make(SMALL | {"memory": "heads"}, device)
    assert torch.autograd.gradcheck(lambda x: rotary(x, cos, sin), x.detach().double().requires_grad_())


def test_runs_are_bitwise_the_same_with_and_without_gradients(device: torch.device) -> None:
    x, cos, sin = make(SMALL | {"dtype": torch.bfloat16}, device)
    for backend in ("triton", "torch"):
        first, second = (run(backend, x, cos, sin) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        with torch.inference_mode():
            assert torch.equal(rotary(x, cos, sin, backend=backend), first[0])


@pytest.mark.parametrize("path", ["triton", "torch"])
@pytest.mark.parametrize("memory", ["positions", "heads", "gaps"])
def test_the_operator_keeps_its_promises(device: torch.device, path: str, memory: str) -> None:
    x, cos, sin = make(SMALL | {"memory": memory}, device)
    torch.library.opcheck(
        torch.ops.mamba2.rotary.default,
        (x, cos, sin, False, path),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_triton_keeps_the_order_in_memory(device: torch.device) -> None:
    x, cos, sin = make(SMALL | {"length": "tile"}, device)
    y = rotary(x, cos, sin, backend="triton")
    assert y.stride() == x.stride()
    backwards = x.detach().flip(-1).transpose(-1, -2).contiguous().transpose(-1, -2)  # channels lie apart
    assert error(rotary(backwards, cos, sin, backend="triton"), rotary(backwards, cos, sin, backend="torch")) < 1e-6


def test_paths_are_chosen_by_argument_and_environment(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    x, cos, sin = make(SMALL, device)
    with pytest.raises(ValueError, match="backend is 'triton': this operator has no such kernel"):
        rotary(x.double(), cos, sin, backend="triton")
    monkeypatch.setenv("MAMBA2_BACKEND", "triton")  # it only asks: torch takes what Triton does not
    assert torch.equal(rotary(x.double(), cos, sin), rotary(x.double(), cos, sin, backend="torch"))
    monkeypatch.delenv("MAMBA2_BACKEND")
    path = "triton" if device.type == "cuda" else "torch"  # nobody interprets who did not ask for it
    assert torch.equal(rotary(x, cos, sin), rotary(x, cos, sin, backend=path))


def test_errors_name_the_argument(device: torch.device) -> None:
    x, cos, sin = make(SMALL, device)
    with pytest.raises(ValueError, match=r"x \(3, 1, 6\) must be"):
        rotary(x[0], cos, sin)
    with pytest.raises(ValueError, match=r"sin has shape \(2, 1, 1\), expected \(2, 1, 2\)"):
        rotary(x, cos, sin[..., :1])
    with pytest.raises(ValueError, match="cos has 2 angles for 3 channels: make it 1 to 1"):
        rotary(x[..., :3], cos, sin)


@pytest.mark.parametrize("fault", ["wrong", "fails"])
def test_kernels_that_are_wrong_or_fail_are_left(
    device: torch.device, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model.ops.rotary import triton

    right = triton.forward
    arguments = (str(device), torch.float32, 24, 8)
    assert selfcheck._passes.__wrapped__(*arguments)

    def forward(x: Tensor, cos: Tensor, sin: Tensor, inverse: bool) -> Tensor:
        if fault == "fails":
            raise RuntimeError("out of resources")
        return right(x, cos, sin, False)

    monkeypatch.setattr(triton, "forward", forward)
    with pytest.warns(UserWarning, match="the slower torch path is used"):
        assert not selfcheck._passes.__wrapped__(*arguments)


def test_angles_that_want_gradients_are_an_error(device: torch.device) -> None:
    """They would get none, and nobody would see."""
    x, cos, sin = torch.randn(1, 2, 3, 8, device=device), *(torch.randn(3, 4, device=device) for _ in range(2))
    with pytest.raises(ValueError, match="gradients of x only"):
        rotary(x, cos.requires_grad_(), sin)
    with torch.no_grad():
        rotary(x, cos, sin)
