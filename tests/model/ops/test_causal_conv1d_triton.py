"""The convolution's Triton kernels: interpreted where there is no GPU, against conv1d in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.ops.causal_conv1d import causal_conv1d, native, selfcheck
from tests.model.compare import as_good, error, outputs_and_gradients
from tests.model.cover import label, pairwise

TILE = 32
"""Rows of a program at these sizes, in the backward less those that it goes into the next one's."""

AXES = {
    "dtype": [torch.float32, torch.bfloat16, torch.float16],
    "length": ["one", "less", "tile", "more", "several"],
    "channels": [5, 130, 520],
    "width": [2, 3, 4],
    "activation": ["silu", None],
    "packed": ["no", "some", "short"],
    "bias": [False, True],
    "initial_state": [False, True],
}
COVERING = pairwise(AXES)
SMALL = {"dtype": torch.float32, "length": "more", "channels": 20, "width": 4, "activation": "silu", "packed": "some"}
SMALL |= {"bias": True, "initial_state": True}


def make(case: dict, device: torch.device) -> tuple[dict[str, Tensor], dict]:
    """Inputs in the case's precision, and options."""
    channels, width = case["channels"], case["width"]
    tile = TILE - (width - 1)
    seqlen = {"one": 1, "less": tile - 1, "tile": tile, "more": tile + 1, "several": 2 * TILE - 1}[case["length"]]
    batch = 2 if channels < 100 and case["length"] != "several" else 1  # interpreted, a row of a program takes 5 ms

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device).to(case["dtype"]).requires_grad_()

    inputs = {"x": normal(batch, seqlen, channels), "weight": normal(channels, width)}
    optional = {"bias": (channels,), "initial_state": (batch, width - 1, channels)}
    inputs |= {name: normal(*optional[name]) for name in optional if case[name]}
    options: dict = {"activation": case["activation"]}
    if case["packed"] != "no":
        documents = 3 if case["packed"] == "some" else max(seqlen // 2, 1)  # many of them of one position
        index = torch.randint(0, documents, (batch, seqlen), device=device, dtype=torch.int32)
        options["seq_idx"] = index.sort(dim=1).values
    return inputs, options


def run(backend: str, inputs: dict[str, Tensor], options: dict) -> list[Tensor]:
    return outputs_and_gradients(lambda: causal_conv1d(**inputs, **options, backend=backend), list(inputs.values()))


@pytest.mark.parametrize("case", COVERING, ids=label)
def test_outputs_and_gradients_are_those_of_conv1d(case: dict, device: torch.device) -> None:
    inputs, options = make(case, device)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    ours, torchs, truth = (
        run("triton", inputs, options),
        run("torch", inputs, options),
        run("reference", exact, options),
    )
    for name, *values in zip(["y", *inputs], ours, torchs, truth, strict=True):
        as_good(name, *values)


def test_runs_are_bitwise_the_same(device: torch.device) -> None:
    inputs, options = make(SMALL | {"dtype": torch.bfloat16}, device)
    first, second = (run("triton", inputs, options) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_what_is_not_finite_stays_in_its_document(device: torch.device) -> None:
    inputs, options = make(SMALL | {"initial_state": False}, device)
    options["seq_idx"] = (torch.arange(30, device=device) >= 11).to(torch.int32).expand(2, -1)
    whole = run("triton", inputs, options)
    with torch.no_grad():
        inputs["x"][:, 8:11] = float("nan")
    y, dx, *_ = run("triton", inputs, options)
    assert torch.equal(y[:, 11:], whole[0][:, 11:])
    assert torch.equal(dx[:, 11:], whole[1][:, 11:])
    assert torch.equal(y[:, :8], whole[0][:, :8])


def test_strided_inputs(device: torch.device) -> None:
    inputs, options = make(SMALL, device)
    wide = torch.randn(2, inputs["x"].shape[1], 50, device=device)
    x, tail = wide[..., 7:27], inputs["initial_state"].detach().transpose(0, 1).contiguous().transpose(0, 1)
    strided = inputs | {"x": x, "initial_state": tail}
    tight = inputs | {"x": x.contiguous()}
    ours, theirs = (causal_conv1d(**tensors, **options, backend="triton") for tensors in (strided, tight))
    assert torch.equal(ours, theirs)


def test_the_operator_keeps_its_promises(device: torch.device) -> None:
    inputs, options = make(SMALL, device)
    torch.library.opcheck(
        torch.ops.mamba2.causal_conv1d.default,
        (*inputs.values(), options["seq_idx"], "silu", "triton"),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_paths_are_chosen_by_argument_and_environment(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, options = make(SMALL, device)
    doubles = {name: tensor.double() for name, tensor in inputs.items()}
    wide = {"x": torch.randn(1, 4, 3, device=device), "weight": torch.randn(3, 9, device=device)}
    for refused in (doubles, wide):
        with pytest.raises(ValueError, match="backend is 'triton': this operator has no such kernel"):
            causal_conv1d(**refused, backend="triton")
    monkeypatch.setenv("MAMBA2_BACKEND", "triton")  # it only asks: torch takes what Triton does not
    assert torch.equal(causal_conv1d(**doubles), causal_conv1d(**doubles, backend="torch"))
    monkeypatch.delenv("MAMBA2_BACKEND")
    on_cpu = "native" if native.works() else "torch"
    path = "triton" if device.type == "cuda" else on_cpu  # nobody interprets who did not ask for it
    assert torch.equal(causal_conv1d(**inputs, **options), causal_conv1d(**inputs, **options, backend=path))


@pytest.mark.parametrize("fault", ["wrong", "fails"])
def test_kernels_that_are_wrong_or_fail_are_left(
    device: torch.device, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model.ops.causal_conv1d import triton

    right = triton.backward
    arguments = (str(device), torch.float32, 2)
    assert fault == "fails" or selfcheck._passes.__wrapped__(*arguments)

    def backward(*inputs: object) -> tuple[Tensor, ...]:
        if fault == "fails":
            raise RuntimeError("out of resources")
        dx, *others = right(*inputs)
        return dx * 1.01, *others

    monkeypatch.setattr(triton, "backward", backward)
    with pytest.warns(UserWarning, match="the slower torch path is used"):
        assert not selfcheck._passes.__wrapped__(*arguments)


def test_documents_are_as_if_alone(device: torch.device) -> None:
    inputs, _ = make(SMALL | {"bias": False, "initial_state": False}, device)
    seqlen = inputs["x"].shape[1]
    idx = (torch.arange(seqlen, device=device) >= 2).to(torch.int32).expand(2, -1)
    together = causal_conv1d(**inputs, seq_idx=idx, backend="triton")
    for part in (slice(0, 2), slice(2, seqlen)):
        alone = causal_conv1d(inputs["x"][:, part], inputs["weight"], backend="triton")
        assert error(together[:, part], alone) <= 1e-6
