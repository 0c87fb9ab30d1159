"""The causal convolution against PyTorch's conv1d."""

import pytest
import torch
from torch import Tensor

from model.ops.causal_conv1d import causal_conv1d, causal_conv1d_state, causal_conv1d_step
from tests.model.compare import assert_agree, outputs_and_gradients


def make_inputs(
    device: torch.device, seqlen: int = 11, width: int = 4, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    shapes = {"x": (2, seqlen, 5), "weight": (5, width), "bias": (5,), "initial_state": (2, width - 1, 5)}
    return {name: torch.randn(shape, dtype=dtype, device=device, requires_grad=True) for name, shape in shapes.items()}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("absent", [(), ("bias",), ("initial_state",)])
@pytest.mark.parametrize(("seqlen", "width"), [(1, 4), (2, 4), (3, 2), (11, 4)])
def test_agrees_with_conv1d(
    device: torch.device, seqlen: int, width: int, absent: tuple[str, ...], activation: str | None, packed: bool
) -> None:
    inputs = {name: t for name, t in make_inputs(device, seqlen, width).items() if name not in absent}
    seq_idx = torch.randint(0, 3, (2, seqlen), device=device, dtype=torch.int32).sort(dim=1).values

    def run(backend: str) -> list[Tensor]:
        def call() -> Tensor:
            documents = seq_idx if packed else None
            return causal_conv1d(**inputs, activation=activation, seq_idx=documents, backend=backend)

        return outputs_and_gradients(call, list(inputs.values()))

    assert_agree(run("torch"), run("reference"), 1e-12)


def test_steps_equal_the_whole(device: torch.device) -> None:
    inputs = {name: tensor.detach() for name, tensor in make_inputs(device).items()}
    whole, state = causal_conv1d(**inputs), inputs["initial_state"]
    for t in range(whole.shape[1]):
        y, state = causal_conv1d_step(inputs["x"][:, t], state, inputs["weight"], inputs["bias"])
        assert_agree([y], [whole[:, t]], 1e-12)
    assert torch.equal(state, causal_conv1d_state(inputs["x"], inputs["initial_state"]))


def test_gradcheck(device: torch.device) -> None:
    inputs = make_inputs(device, seqlen=5)
    names = list(inputs)
    assert torch.autograd.gradcheck(
        lambda *tensors: causal_conv1d(**dict(zip(names, tensors, strict=True))), tuple(inputs.values())
    )


def test_operator(device: torch.device) -> None:
    inputs = make_inputs(device, dtype=torch.float32)
    arguments = (inputs["x"], inputs["weight"], inputs["bias"], None, None, "silu", "torch")
    torch.library.opcheck(torch.ops.mamba2.causal_conv1d.default, arguments)


def test_errors_name_the_argument(device: torch.device) -> None:
    inputs = make_inputs(device)
    with pytest.raises(ValueError, match=r"bias has shape \(4,\), expected \(5,\)"):
        causal_conv1d(inputs["x"], inputs["weight"], inputs["bias"][:4])
    with pytest.raises(ValueError, match="activation is 'relu'"):
        causal_conv1d(inputs["x"], inputs["weight"], activation="relu")
