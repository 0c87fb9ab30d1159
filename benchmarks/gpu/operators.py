"""The operators that stream memory, on a GPU: time, bytes per second, and how much of the ideal traffic they reach.

    python -m benchmarks.gpu.operators [OPERATOR ...] [--json FILE]

bf16 activations, random inputs. Ideal bytes: forward, every input read and the output written once; backward, what it
cannot do without (the gradient of the output and the inputs named below) read and each gradient written once. Times are
the device's own, with cold caches; `host` is a training step's forward and backward as called, where short kernels wait
for Python.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.ceilings import ceilings, device_seconds, keep, say, seconds
from model.ops.add_rmsnorm import add_rmsnorm
from model.ops.causal_conv1d import causal_conv1d
from model.ops.cross_entropy import linear_cross_entropy
from model.ops.gated_rmsnorm import gated_rmsnorm
from model.ops.rotary import rotary

Inputs = dict[str, Tensor]
Outputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Operator:
    """A row of the table below.

    Attributes:
        shapes: arguments of `make` by name.
        make: the inputs, those with gradients requiring them.
        call: the operator on these inputs through a backend.
        backward_reads: names of the inputs that an ideal backward reads.
        peers: other implementations, called with the inputs; none where nothing is installed.
    """

    shapes: dict[str, tuple[int, ...]]
    make: Callable[..., Inputs]
    call: Callable[..., Outputs]
    backward_reads: tuple[str, ...]
    peers: Callable[[], dict[str, Callable[[Inputs], Outputs]]] = field(default=dict)


def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """A parameter or an activation."""
    return torch.randn(*shape, device="cuda", dtype=dtype).requires_grad_()


# Causal convolution: batch, length, channels.


def conv_inputs(batch: int, seqlen: int, channels: int) -> Inputs:
    return {"x": normal(batch, seqlen, channels), "weight": normal(channels, 4), "bias": normal(channels)}


def conv_peers() -> dict[str, Callable[[Inputs], Outputs]]:
    try:
        from causal_conv1d import causal_conv1d_fn
    except ImportError:
        return {}

    def theirs(inputs: Inputs) -> Tensor:
        x = inputs["x"].transpose(1, 2)
        return causal_conv1d_fn(x, inputs["weight"], inputs["bias"], activation="silu").transpose(1, 2)

    return {"causal_conv1d": theirs}


# Gated RMSNorm of the mixer, and that of an 8B with its groups: rows, channels.


def gated_inputs(rows: int, channels: int) -> Inputs:
    return {"x": normal(rows, channels), "weight": normal(channels), "gate": normal(rows, channels)}


def gated_call(inputs: Inputs, backend: Any, groups: int) -> Tensor:
    return gated_rmsnorm(**inputs, group_size=inputs["x"].shape[1] // groups, backend=backend)


def gated_peers(groups: int) -> dict[str, Callable[[Inputs], Outputs]]:
    try:
        from mamba_ssm.ops.triton.layernorm_gated import rmsnorm_fn
    except ImportError:
        return {}

    def theirs(inputs: Inputs) -> Tensor:
        x = inputs["x"]
        size = x.shape[1] // groups
        return rmsnorm_fn(x, inputs["weight"], None, inputs["gate"], 1e-5, group_size=size, norm_before_gate=False)

    return {"mamba_ssm": theirs}


# The residual stream, in fp32, after one more layer and its RMSNorm, in bf16: rows, channels.


def residual_inputs(rows: int, channels: int) -> Inputs:
    residual = normal(rows, channels, dtype=torch.float32)
    return {"residual": residual, "mixed": normal(rows, channels), "weight": normal(channels)}


def residual_peers() -> dict[str, Callable[[Inputs], Outputs]]:
    try:
        from mamba_ssm.ops.triton.layer_norm import rms_norm_fn
    except ImportError:
        return {}

    def theirs(inputs: Inputs) -> tuple[Tensor, ...]:
        options = {"eps": 1e-5, "prenorm": True, "residual_in_fp32": True}
        return rms_norm_fn(inputs["mixed"], inputs["weight"], None, residual=inputs["residual"], **options)

    return {"mamba_ssm": theirs}


# Linear head and cross-entropy: rows, width, vocabulary. Its forward alone makes no gradients, and its backward only
# scales them: what counts is `host`, most of it the three products.


def head_inputs(rows: int, d_model: int, vocab: int) -> Inputs:
    targets = torch.randint(0, vocab, (rows,), device="cuda")
    with torch.no_grad():
        weight = normal(vocab, d_model) / d_model**0.5
    return {"hidden": normal(rows, d_model), "weight": weight.requires_grad_(), "targets": targets}


# Rotation: batch, length, heads, channels of a head.


def rotary_inputs(batch: int, seqlen: int, heads: int, head_dim: int) -> Inputs:
    angles = torch.arange(seqlen, device="cuda").unsqueeze(1) * torch.rand(head_dim // 2, device="cuda")
    x = normal(batch, seqlen, heads, head_dim).detach().transpose(1, 2).requires_grad_()
    return {"x": x, "cos": angles.cos(), "sin": angles.sin()}


OPERATORS = {
    "causal_conv1d": Operator(
        shapes={
            "130M": (8, 2048, 1536),
            "2.7B": (1, 8192, 5120),
            "8B": (1, 8192, 8192),
            "8B, B and C": (1, 8192, 1024),
            "8B, 64k": (1, 65536, 8192),
        },
        make=conv_inputs,
        call=lambda inputs, backend: causal_conv1d(**inputs, backend=backend),
        backward_reads=("x", "weight", "bias"),
        peers=conv_peers,
    ),
    "gated_rmsnorm": Operator(
        shapes={"130M": (16384, 1536), "2.7B": (8192, 5120)},
        make=gated_inputs,
        call=partial(gated_call, groups=1),
        backward_reads=("x", "weight", "gate"),
        peers=partial(gated_peers, groups=1),
    ),
    "grouped_norm": Operator(
        shapes={"8B": (8192, 8192), "8B, 64k": (65536, 8192)},
        make=gated_inputs,
        call=partial(gated_call, groups=8),
        backward_reads=("x", "weight", "gate"),
        peers=partial(gated_peers, groups=8),
    ),
    "add_rmsnorm": Operator(
        shapes={"130M": (16384, 768), "2.7B": (8192, 2560), "8B": (8192, 4096), "8B, 64k": (65536, 4096)},
        make=residual_inputs,
        call=lambda inputs, backend: add_rmsnorm(**inputs, out_dtype=torch.bfloat16, backend=backend),
        backward_reads=("residual", "weight"),
        peers=residual_peers,
    ),
    "cross_entropy": Operator(
        shapes={"130M": (16384, 768, 50288), "2.7B": (8192, 2560, 50288), "8B": (8192, 4096, 256000)},
        make=head_inputs,
        call=lambda inputs, backend: linear_cross_entropy(**inputs, backend=backend),
        backward_reads=("weight",),
    ),
    "rotary": Operator(
        shapes={
            "8B, queries": (1, 8192, 32, 128),
            "8B, keys": (1, 8192, 8, 128),
            "8B, 64k": (1, 65536, 32, 128),
        },
        make=rotary_inputs,
        call=lambda inputs, backend: rotary(**inputs, backend=backend),
        backward_reads=("cos", "sin"),
    ),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*", metavar="OPERATOR", help=f"of {', '.join(OPERATORS)}; all if none")
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    unknown = set(arguments.operators) - OPERATORS.keys()
    if unknown:
        parser.error(f"no operator {', '.join(sorted(unknown))}: choose of {', '.join(OPERATORS)}")
    found = ceilings()
    say(found)
    print(f"{'':41} forward ms  GB/s of copy | backward ms  GB/s of copy | host ms  GB more")
    found["rows"] = []
    for name in arguments.operators or OPERATORS:
        operator = OPERATORS[name]
        paths = {backend: partial(operator.call, backend=backend) for backend in ("triton", "torch")}
        for shape, sizes in operator.shapes.items():
            torch.manual_seed(0)
            inputs = operator.make(*sizes)
            for path, function in (paths | operator.peers()).items():
                row = {"operator": name, "shape": shape, "path": path} | measure(operator, function, inputs)
                found["rows"].append(row)
                show(row, found["copy"])
    keep(arguments.json, found)


def measure(operator: Operator, function: Callable[[Inputs], Outputs], inputs: Inputs) -> dict[str, Any]:
    """Seconds and ideal bytes of both directions; bytes at the peak of both above inputs, output and gradients.

    What runs out of memory or is not there for these inputs says so instead.
    """
    try:
        return _measure(operator, function, inputs)
    except (torch.OutOfMemoryError, ValueError) as error:
        return {"failed": str(error).splitlines()[0]}


def _measure(operator: Operator, function: Callable[[Inputs], Outputs], inputs: Inputs) -> dict[str, Any]:
    learnt = [tensor for tensor in inputs.values() if tensor.requires_grad]
    outputs = _all(function(inputs))
    grads = [torch.randn_like(y) for y in outputs]

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(outputs, learnt, grads, retain_graph=True)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(_all(function(inputs)), learnt, grads)

    given = _bytes(outputs) + _bytes(both())
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    both()
    memory = torch.cuda.max_memory_allocated() - before - given
    read = _bytes(inputs[name] for name in operator.backward_reads)
    with torch.no_grad():
        forward = device_seconds(lambda: function(inputs))
    return {
        "forward": forward,
        "forward_bytes": _bytes(inputs.values()) + _bytes(outputs),
        "backward": device_seconds(backward),
        "backward_bytes": read + _bytes(grads) + _bytes(learnt),
        "host": seconds(both),
        "memory": float(memory),
    }


def _all(outputs: Outputs) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def show(row: dict[str, Any], copy: float) -> None:
    """One line of the table."""
    title = f"{row['operator']:14} {row['shape']:12} {row['path']:13}"
    if "failed" in row:
        print(f"{title} {row['failed']}", flush=True)
        return
    figures = []
    for direction in ("forward", "backward"):
        rate = row[f"{direction}_bytes"] / row[direction]
        figures.append(f"{row[direction] * 1e3:{len(direction) + 3}.3f} {rate / 1e9:5.0f} {rate / copy:7.0%}")
    print(f"{title} {' | '.join(figures)} | {row['host'] * 1e3:7.3f} {row['memory'] / 1e9:8.2f}", flush=True)


if __name__ == "__main__":
    main()
