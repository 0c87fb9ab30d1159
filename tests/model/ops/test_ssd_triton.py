"""The SSD's Triton kernels: interpreted where there is no GPU, against the recurrence in fp64."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
import triton.language as tl
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from model.ops import _selfcheck
from model.ops._launch import Launched
from model.ops.ssd import selfcheck, ssd
from model.ops.ssd.triton.gradients import gradients_kernel
from model.ops.ssd.triton.scan import scan_kernel
from model.ops.ssd.triton.states import parts_kernel, states_kernel
from tests.model.compare import CUT, error, outputs_and_gradients
from tests.model.cover import every, label, pairwise

CONSTANTS = {torch.float32: 2e-5, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-9}
"""What a kernel's error may be beyond twice torch's, of the largest value: in fp32 for the sums of decays, which torch
makes in fp64; in bf16 one rounding of the factors; in fp16 two, to tf32, for which a GPU cuts bits off."""

CHUNK = {torch.float32: 32, torch.float16: 32, torch.bfloat16: 64}
AXES = {
    "dtype": [torch.float32, torch.bfloat16, torch.float16],
    "length": ["one", "short", "chunk", "over", "several", "segments"],
    "groups": [1, 2, 8],
    "dstate": [16, 64, 128],
    "headdim": [32, 64, 128],
    "packed": [False, True],
    "options": ["none", "all", "limits", "extreme"],
}


COVERING = pairwise(AXES)
GRID = every(AXES)


def make(case: dict, device: torch.device) -> tuple[dict[str, Tensor], dict]:
    """Inputs in the case's precision, those that the model keeps in fp32 in fp32; and options."""
    dtype, groups, kind = case["dtype"], case["groups"], case["options"]
    chunk = CHUNK[dtype]
    seqlen = {
        "one": 1,
        "short": chunk - 1,
        "chunk": chunk,
        "over": chunk + 1,
        "several": 3 * chunk - 5,
        "segments": 8 * chunk + 3,
    }.get(case["length"], case["length"])
    heads, batch = case.get("heads", max(2, groups)), 1 if groups == 8 or "heads" in case else 2
    scale = 50.0 if kind == "extreme" else 1.0

    def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    inputs = {
        "x": normal(batch, seqlen, heads, case["headdim"]),
        "dt": scale * normal(batch, seqlen, heads),
        "A": -scale * torch.rand(heads, device=device) - 0.1,
        "B": normal(batch, seqlen, groups, case["dstate"]) / case["dstate"] ** 0.5,
        "C": normal(batch, seqlen, groups, case["dstate"]),
    }
    if kind != "none":
        inputs |= {name: normal(heads, dtype=torch.float32) for name in ("D", "dt_bias")}
        inputs["initial_state"] = normal(batch, heads, case["headdim"], case["dstate"], dtype=torch.float32)
    options: dict = {"dt_softplus": kind != "limits", "return_final_state": True}
    if kind == "limits":
        options["dt_limit"] = (0.1, 0.7)
    if case["packed"]:
        documents = torch.randint(0, 4, (batch, seqlen), device=device, dtype=torch.int32)
        options["seq_idx"] = documents.sort(dim=1).values
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}, options


def check(case: dict, device: torch.device) -> None:
    """Errors are at most twice those of torch, whose products are in fp32 whatever the inputs, and a constant.

    That is relative to the largest element, or to how large it is for other projections of the outputs: for one of them
    a sum may cancel, its error does not.
    """
    inputs, options = make(case, device)

    def run(backend: str, tensors: dict[str, Tensor], projection: int = 1) -> list[Tensor]:
        run_once = partial(ssd, **tensors, **options, backend=backend)
        return outputs_and_gradients(run_once, list(tensors.values()), seed=projection)

    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    expected = run("reference", exact)
    ours, torchs = run("triton", inputs), run("torch", inputs)
    constant = CONSTANTS[case["dtype"]]
    if case["dtype"] == torch.bfloat16 and device.type != "cuda":
        constant += CUT
    if case["options"] == "extreme":  # sums of a chunk reach 20 x 32 log2(e): their differences lose 1e-4
        constant = max(constant, 5e-4)
    names = ["y", "final", *inputs]
    for index, (name, mine, other, truth) in enumerate(zip(names, ours, torchs, expected, strict=True)):
        assert bool(mine.isfinite().all()), name
        floor = 0.0
        if case["options"] == "extreme" and case["length"] == "one":
            # What is left of the initial state below e^-20 is dropped (SMALLEST), and may be all that there is
            dropped = math.exp(-20) * inputs["dt"].abs().max().item() * case["headdim"] * case["dstate"]
            floor = dropped if name == "A" else 1e-7
        difference, theirs = ((tensor - truth).abs().max().item() for tensor in (mine, other))
        allowed, scale = 2 * theirs + floor, truth.abs().max().item()
        if difference > allowed + constant * scale:
            others = [run("reference", exact, projection)[index].abs().max().item() for projection in range(2, 10)]
            scale = max(scale, math.sqrt(sum(size**2 for size in others) / len(others)))
        assert difference <= allowed + constant * scale, (
            f"{name}: {difference:.1e} of {scale:.1e}, torch's {theirs:.1e}"
        )


@pytest.mark.parametrize("case", COVERING, ids=label)
def test_outputs_and_gradients_are_those_of_the_recurrence(case: dict, device: torch.device) -> None:
    check(case, device)


@pytest.mark.full_grid
@pytest.mark.parametrize("case", GRID, ids=label)
def test_the_full_grid(case: dict, device: torch.device) -> None:
    check(case, device)


@pytest.mark.parametrize(("heads", "groups"), [(8, 2), (3, 1)])
def test_several_heads_share_a_group(heads: int, groups: int, device: torch.device) -> None:
    """On Hopper one program has two heads, or the kernels are others where their number is odd."""
    case = {"dtype": torch.bfloat16, "length": "several", "groups": groups, "dstate": 128, "headdim": 64}
    check(case | {"heads": heads, "packed": True, "options": "all"}, device)


@pytest.mark.parametrize("segments", [1, 2])
def test_many_chunks_and_heads_in_turn(segments: int, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of the kernels on Hopper goes through more chunks, or heads, than its ring of tiles has places, twice
    over; states are saved within a segment, too.
    """
    from model.ops.ssd import triton
    from model.ops.ssd.triton import plan as sizes

    monkeypatch.setattr(sizes, "MULTIPROCESSORS", 1)
    monkeypatch.setattr(sizes, "PROGRAMS", 8 * segments)
    monkeypatch.setattr(sizes, "SLICE", 2**20)
    for remembered in ("_FORWARDS", "_BACKWARDS"):
        monkeypatch.setattr(triton, remembered, triton.Remembered())
    long = 13 if device.type == "cuda" else 8
    case = {"dtype": torch.bfloat16, "length": 64 * long + 5, "groups": 1, "dstate": 128, "headdim": 64, "heads": 8}
    check(case | {"packed": True, "options": "all"}, device)


@pytest.mark.parametrize(("headdim", "dstate"), [(32, 16), (64, 128)], ids=["small", "preset"])
def test_runs_are_bitwise_the_same(headdim: int, dstate: int, device: torch.device) -> None:
    case = {"dtype": torch.bfloat16, "length": "segments", "groups": 2, "dstate": dstate, "headdim": headdim} | {
        "packed": True,
        "options": "all",
    }
    inputs, options = make(case, device)
    first, second = (
        outputs_and_gradients(lambda: ssd(**inputs, **options, backend="triton"), list(inputs.values()))
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("length", [1, 40])
def test_large_updates_take_no_precision_from_what_a_state_does(length: int, device: torch.device) -> None:
    """An update does not decay by its own step: however large, it says nothing of A where it is the only one."""
    torch.manual_seed(0)
    inputs = {
        "x": torch.zeros(1, length, 2, 16, device=device),
        "dt": torch.full((1, length, 2), 0.1, device=device),
        "A": torch.tensor([-0.5, -2.0], device=device),
        "B": torch.randn(1, length, 1, 16, device=device),
        "C": torch.randn(1, length, 1, 16, device=device),
        "initial_state": torch.randn(1, 2, 16, 16, device=device),
    }
    inputs["x"][:, -1] = 1e6
    inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}

    def gradients(backend: str, tensors: dict[str, Tensor]) -> list[Tensor]:
        def outputs() -> tuple[Tensor, ...]:
            return ssd(**tensors, return_final_state=True, backend=backend)

        return outputs_and_gradients(outputs, list(tensors.values()))[2:]

    ours, theirs = gradients("triton", inputs), gradients("reference", exact)
    at = list(inputs).index("A")
    assert error(ours[at], theirs[at]) <= 1e-5


def test_calls_that_differ_in_one_thing_alternate(device: torch.device) -> None:
    """A forward remembers its launches: of these, none is another's."""
    case = {"dtype": torch.float32, "length": "segments", "groups": 2, "dstate": 16, "headdim": 32} | {
        "packed": True,
        "options": "all",
    }
    inputs, options = make(case, device)
    calls: list[dict] = [inputs | options]
    calls += [{n: t for n, t in calls[0].items() if n != name} for name in ("D", "dt_bias", "initial_state", "seq_idx")]
    calls += [calls[0] | {name: inputs[name].bfloat16()} for name in ("dt", "A", "D", "initial_state")]
    calls += [calls[0] | {"dt_softplus": False, "dt_limit": limit} for limit in ((0.0, 0.5), (0.1, 0.5))]
    for _ in range(2):
        for call in calls:
            ours, theirs = (ssd(**call, backend=backend) for backend in ("triton", "reference"))
            for mine, truth in zip(ours, theirs, strict=True):
                assert error(mine, truth) <= 5e-5


def test_inputs_may_start_anywhere_and_have_gaps(device: torch.device) -> None:
    case = {"dtype": torch.bfloat16, "length": "over", "groups": 2, "dstate": 16, "headdim": 32} | {
        "packed": False,
        "options": "all",
    }
    inputs, options = make(case, device)

    def elsewhere(tensor: Tensor, gaps: bool) -> Tensor:
        memory = tensor.new_empty(2 * tensor.numel() + 1)
        place = memory[1::2] if gaps else memory[1 : 1 + tensor.numel()]
        return place[: tensor.numel()].copy_(tensor.detach().flatten()).view(tensor.shape)

    expected = ssd(**inputs, **options, backend="triton")
    for gaps in (False, True):
        found = ssd(**{name: elsewhere(t, gaps) for name, t in inputs.items()}, **options, backend="triton")
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("programs", [1, 264])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_backward_in_slices(
    device: torch.device, dtype: torch.dtype, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forward's one segment saves the state at each slice's start; or segments are slices, and heads are split."""
    from model.ops.ssd import triton
    from model.ops.ssd.triton import plan as sizes

    monkeypatch.setattr(sizes, "SLICE", 1)
    monkeypatch.setattr(sizes, "PROGRAMS", programs)
    for remembered in ("_FORWARDS", "_BACKWARDS"):
        monkeypatch.setattr(triton, remembered, triton.Remembered())
    case = {"dtype": dtype, "length": "segments", "groups": 1, "dstate": 16, "headdim": 32} | {
        "packed": True,
        "options": "all",
    }
    inputs, _ = make(case, device)
    plan = triton.Plan(inputs["x"], inputs["B"])
    assert plan.nslices == 2
    assert (plan.nsegments, plan.nsplits) == ((1, 1) if programs == 1 else (2, 2))
    check(case, device)


def test_packed_documents_are_as_if_alone(device: torch.device) -> None:
    case = {"dtype": torch.float32, "length": "several", "groups": 1, "dstate": 16, "headdim": 32} | {
        "packed": False,
        "options": "none",
    }
    inputs, options = make(case, device)
    ends = [0, 1, 40, inputs["x"].shape[1]]
    idx = torch.zeros(inputs["x"].shape[:2], dtype=torch.int32, device=device)
    for end in ends[1:-1]:
        idx[:, end:] += 1
    together, _ = ssd(**inputs, **options, seq_idx=idx, backend="triton")
    for start, end in itertools.pairwise(ends):
        part = {name: t if name == "A" else t[:, start:end] for name, t in inputs.items()}
        alone, _ = ssd(**part, **options, backend="triton")
        assert error(together[:, start:end], alone) <= 1e-5


def test_the_operator_keeps_its_promises(device: torch.device) -> None:
    case = {"dtype": torch.float32, "length": "over", "groups": 2, "dstate": 16, "headdim": 32} | {
        "packed": True,
        "options": "all",
    }
    inputs, options = make(case, device)
    rest = [inputs.get(name) for name in ("D", "dt_bias", "initial_state")]
    arguments = [inputs[name] for name in ("x", "dt", "A", "B", "C")]
    torch.library.opcheck(
        torch.ops.mamba2.ssd.default,
        (*arguments, *rest, options["seq_idx"], True, 0.0, math.inf, 64, "triton"),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_paths_are_chosen_by_argument_and_environment(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    case = {"dtype": torch.float32, "length": "short", "groups": 1, "dstate": 16, "headdim": 32} | {
        "packed": False,
        "options": "none",
    }
    inputs, _ = make(case, device)
    doubles = {name: tensor.double() for name, tensor in inputs.items()}
    with pytest.raises(ValueError, match="backend is 'triton': this operator has no such kernel"):
        ssd(**doubles, backend="triton")
    wide = inputs | {"x": torch.randn(1, 4, 1, 200, device=device), "dt": torch.randn(1, 4, 1, device=device)}
    wide |= {"A": -torch.rand(1, device=device), "B": torch.randn(1, 4, 1, 8, device=device)}
    with pytest.raises(ValueError, match="backend is 'triton': this operator has no such kernel"):
        ssd(**wide | {"C": wide["B"]}, backend="triton")
    with pytest.raises(ValueError, match="backend is 'cuda': choose"):
        ssd(**inputs, backend="cuda")  # type: ignore[arg-type]
    monkeypatch.setenv("MAMBA2_BACKEND", "cuda")
    with pytest.raises(ValueError, match="MAMBA2_BACKEND is 'cuda': choose"):
        ssd(**inputs)
    outputs = {}
    for path in ("torch", "reference"):
        monkeypatch.setenv("MAMBA2_BACKEND", path)
        outputs[path] = ssd(**inputs)
        assert torch.equal(outputs[path], ssd(**inputs, backend=path))
    assert not torch.equal(outputs["torch"], outputs["reference"])
    monkeypatch.setenv("MAMBA2_BACKEND", "triton")  # it only asks: torch takes what Triton does not
    assert torch.equal(ssd(**doubles), ssd(**doubles, backend="torch"))


@pytest.mark.parametrize("kernel", [parts_kernel, scan_kernel, states_kernel, gradients_kernel])
def test_decays_may_be_further_apart_than_32_bits_reach(kernel: Launched) -> None:
    """From 2^31 / 3 tokens and heads on, three planes of them are: more than a test can have. Triton takes a number
    for one of 32 bits where its kernel does not say otherwise.
    """
    assert kernel.jit.fn.__annotations__["plane"] == tl.int64


def test_fp32_on_a_gpu_goes_the_faster_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is torch's, unless kernels are asked for. No GPU is needed to see which way is taken."""
    taken: list[str] = []
    monkeypatch.setattr("model.ops.ssd._SSD", lambda *arguments: taken.append(arguments[-1]) or arguments[:2])
    monkeypatch.setattr("model.ops.ssd._triton_takes", lambda *arguments, **options: True)
    with FakeTensorMode():
        for dtype in (torch.float32, torch.bfloat16):
            x, dt, A, B = (
                torch.empty(shape, device="cuda", dtype=dtype) for shape in ((1, 8, 2, 4), (1, 8, 2), 2, (1, 8, 1, 4))
            )
            for backend in ("auto", "triton"):
                ssd(x, dt, A, B, B, backend=backend)
    assert taken == ["torch", "triton", "triton", "triton"]


@pytest.mark.parametrize("fault", ["wrong", "fails"])
def test_kernels_that_are_wrong_or_fail_are_left(
    device: torch.device, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model.ops.ssd import triton

    right = triton.forward
    arguments = (str(device), torch.float32, 16, 16)
    assert selfcheck._passes.__wrapped__(*arguments)

    def forward(*inputs: object) -> tuple[Tensor, ...]:
        if fault == "fails":
            raise RuntimeError("out of resources")
        y, *others = right(*inputs)
        return y * 1.01, *others

    monkeypatch.setattr(triton, "forward", forward)
    with pytest.warns(UserWarning, match="the slower torch path is used"):
        assert not selfcheck._passes.__wrapped__(*arguments)


def test_a_kernel_that_computes_something_else_is_not_used() -> None:
    good = [torch.ones(3, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)]
    assert _selfcheck.agree(good, [tensor * 1.0001 for tensor in good], 1e-3)
    assert not _selfcheck.agree(good, [good[0], good[1] * 1.01], 1e-3)
    assert not _selfcheck.agree([good[0] * math.nan, good[1]], good, 1e-3)
