"""The products of a decoding step on a GPU: bytes per second of the weights against a copy, and other divisions.

    python -m benchmarks.gpu.linear [--preset nemotron-h-8b] [--rows 1 16 64] [--sweep] [--json FILE]

bf16, cold caches, the device's own time. torch is `F.linear` with all parts' weights in one matrix.
"""

import argparse
import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from benchmarks.gpu.ceilings import ceilings, device_seconds, keep, say
from model import HybridConfig
from model.decode.triton import linear
from model.decode.triton.linear import Linear, Plan, planned

SUMS = {"N": [1, 2, 4, 8], "BLOCK": [512, 1024, 2048], "PIPELINE": [1, 3], "num_warps": [4, 8]}
PRODUCTS = {"N": [16, 32, 64], "BLOCK": [64, 128, 256], "num_stages": [3, 5], "num_warps": [2, 4]}
SHOWN = 6
"""Of the ways, the fastest."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="nemotron-h-8b")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--sweep", action="store_true", help="also other blocks, warps and stages")
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    found = ceilings()
    say(found)
    found["rows"] = []
    for rows, (name, outs, k) in itertools.product(arguments.rows, products(HybridConfig.preset(arguments.preset))):
        for way, took in measured(rows, outs, k, arguments.sweep):
            rate = 2 * sum(outs) * k / took
            found["rows"].append({"rows": rows, "product": name, "way": way, "seconds": took, "rate": rate})
            print(
                f"{rows:3} x {name:9} {sum(outs):6} x {k:5} {took * 1e6:8.1f} us {rate / 1e9:6.0f} GB/s "
                f"{rate / found['copy']:6.1%}  {way}",
                flush=True,
            )
    keep(arguments.json, found)


def products(config: HybridConfig) -> list[tuple[str, tuple[int, ...], int]]:
    """Name, outs of the parts, in: of each product of a step, once."""
    maps, d, d_inner = config.n_groups * config.d_state, config.d_model, config.d_inner
    found: list[tuple[str, tuple[int, ...], int]] = []
    if "M" in config.layers:
        found += [("in_proj", (d_inner, d_inner, maps, maps, config.nheads), d), ("out_proj", (d,), d_inner)]
    if "-" in config.layers:
        found += [("up_proj", (config.d_ff,), d), ("down_proj", (d,), config.d_ff)]
    if "*" in config.layers:
        heads, kv_heads = (count * config.attention_head_dim for count in (config.n_heads, config.n_kv_heads))
        found += [("qkv_proj", (heads, kv_heads, kv_heads), d), ("o_proj", (d,), heads)]
    return [*found, ("head", (config.vocab_size,), d)]


def measured(rows: int, outs: tuple[int, ...], k: int, sweep: bool) -> Iterator[tuple[str, float]]:
    """Ways and their seconds: ours as planned, torch's, and of a sweep the fastest."""
    weights = [torch.randn(out, k, device="cuda", dtype=torch.bfloat16) / k**0.5 for out in outs]
    x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
    ours, whole = Linear(weights, [None] * len(outs)), torch.cat(weights)
    expected = F.linear(x, whole)
    plan = planned(rows, outs, k, x.dtype)
    yield f"planned: {described(plan)}", device_seconds(lambda: ours(x))
    yield "torch", device_seconds(lambda: F.linear(x, whole))
    if not sweep:
        return
    axes = PRODUCTS if "M" in plan.constants else SUMS
    ways = []
    for values in itertools.product(*axes.values()):
        choice = dict(zip(axes, values, strict=True))
        options = {name: choice.pop(name, default) for name, default in plan.options.items()}
        if k % choice["BLOCK"]:
            continue
        other = Plan(outs, plan.constants | choice | {"EVEN": True}, options)
        linear.planned = lambda *_, other=other: other  # type: ignore[assignment]
        try:
            torch.testing.assert_close(ours(x), expected, atol=0.05, rtol=0.05)
            ways.append((device_seconds(lambda: ours(x), runs=10), described(other)))
        except Exception as error:  # no room in shared memory
            print(f"    {described(other)}: {str(error).splitlines()[0]}")
        finally:
            linear.planned = planned
    yield from ((way, took) for took, way in sorted(ways)[:SHOWN])


def described(plan: Plan) -> str:
    """What a sweep changes."""
    shown = {name: plan.constants[name] for name in ("M", "N", "BLOCK", "PIPELINE") if name in plan.constants}
    return " ".join(f"{name} {value}" for name, value in (shown | plan.options).items())


if __name__ == "__main__":
    main()
