"""Decoding on a GPU: ms per token and tokens per second against the time to stream weights and states once.

    python -m benchmarks.gpu.decode [--presets mamba2-130m ...] [--batches 1 16 64] [--contexts 1024]
                                    [--backends triton torch] [--profile] [--json FILE]

bf16, random weights made on the card, random states of so many tokens, the likeliest token fed back. The bound is the
time that a copy of the same run takes to move: every weight read once (of an embedding that is not the head, only the
rows looked up: nothing), Mamba2's states and the convolutions' last inputs read and written, keys and values read.
`--profile` adds the kernels' own times (with the gaps between them left out) of one step.
"""

import argparse
import gc
import time
from collections import defaultdict
from statistics import median
from typing import Any

import torch

from benchmarks.gpu.ceilings import ceilings, keep, say
from model import HybridConfig, HybridLM
from model.decode import Decoder
from model.state import AttentionState, LayerState, MambaState

PRESETS = ("mamba2-130m", "mamba2-2.7b", "nemotron-h-8b")
STEPS = 32
"""Of one measurement; the median of several is shown."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--contexts", nargs="+", type=int, default=[1024])
    parser.add_argument("--backends", nargs="+", default=["triton", "torch"], choices=["triton", "torch"])
    parser.add_argument("--profile", action="store_true", help="kernels of a step, by name")
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    found = ceilings()
    say(found)
    print(
        f"{'preset':16} {'backend':7} {'batch':>5} {'context':>7} "
        f"{'ms/step':>8} {'tokens/s':>9} {'bound ms':>8} {'of it':>6}"
    )
    found["rows"] = []
    for preset in arguments.presets:
        lm = random_model(HybridConfig.preset(preset))
        for backend in arguments.backends:
            found["rows"] += rows_of(preset, lm, backend, arguments, found["copy"])
        del lm
    keep(arguments.json, found)


def random_model(config: HybridConfig) -> HybridLM:
    """In bf16 from the start: in fp32 it would take twice the memory for a moment."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return HybridLM(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)


def rows_of(
    preset: str, lm: HybridLM, backend: str, arguments: argparse.Namespace, copy: float
) -> list[dict[str, Any]]:
    """Figures of one decoder at all batches and contexts."""
    rows: list[dict[str, Any]] = []
    try:
        decoder = Decoder(lm, backend=backend)  # type: ignore[arg-type]
    except torch.OutOfMemoryError:
        print(f"{preset:16} {backend:7} no room for its weights", flush=True)
        return rows
    for batch in arguments.batches:
        for context in arguments.contexts:
            row = {"preset": preset, "backend": backend, "batch": batch, "context": context}
            title = f"{preset:16} {backend:7} {batch:5} {context:7}"
            try:
                states = random_states(lm, batch, context)
                moved = bytes_moved(lm, states)
                row |= {"bytes": moved, "bound": moved / copy, "seconds": measure(decoder, states, batch)}
                if arguments.profile:
                    row["kernels"] = kernels(decoder, states, batch)
            except torch.OutOfMemoryError:
                print(f"{title} no room", flush=True)
                continue
            finally:
                states = []
                gc.collect()
                torch.cuda.empty_cache()
            rows.append(row)
            print(
                f"{title} {row['seconds'] * 1e3:8.3f} {batch / row['seconds']:9.0f} {row['bound'] * 1e3:8.3f} "
                f"{row['bound'] / row['seconds']:6.1%}",
                flush=True,
            )
            for name, (count, took) in row.get("kernels", {}).items():
                print(f"    {took * 1e6:9.1f} us {count:5} x {name}", flush=True)
    return rows


def random_states(lm: HybridLM, batch: int, context: int) -> list[LayerState]:
    """As after a text of so many tokens."""
    states: list[LayerState] = []
    for state in lm.new_state(batch).layers:
        if isinstance(state, MambaState):
            states.append(MambaState(torch.randn_like(state.conv), 0.1 * torch.randn_like(state.ssm)))
        elif isinstance(state, AttentionState):
            heads, d = state.buffer.shape[2], state.buffer.shape[4]
            buffer = torch.randn(2, batch, heads, context, d, device="cuda", dtype=state.buffer.dtype)
            states.append(AttentionState(buffer, context))
        else:
            states.append(None)
    return states


def bytes_moved(lm: HybridLM, states: list[LayerState]) -> int:
    """What one step cannot do without."""
    weights = sum(parameter.nbytes for parameter in lm.parameters())
    if lm.head is not None:
        weights -= lm.embedding.weight.nbytes
    mamba = sum(2 * (state.conv.nbytes + state.ssm.nbytes) for state in states if isinstance(state, MambaState))
    attention = sum(state.keys.nbytes + state.values.nbytes for state in states if isinstance(state, AttentionState))
    return weights + mamba + attention


def measure(decoder: Decoder, states: list[LayerState], batch: int) -> float:
    """Seconds of a step, host and device together; medians of several runs of steps."""
    tokens = torch.zeros(batch, dtype=torch.int64, device="cuda")
    took = []
    with torch.inference_mode():
        for run in range(6):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(STEPS if run else 3):  # the first records
                tokens = decoder.step(tokens, states).argmax(-1)
            torch.cuda.synchronize()
            took.append((time.perf_counter() - start) / STEPS)
    return median(took[1:])


def kernels(decoder: Decoder, states: list[LayerState], batch: int) -> dict[str, tuple[int, float]]:
    """Number and seconds of each kernel of one step, the longest first."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    tokens = torch.zeros(batch, dtype=torch.int64, device="cuda")
    steps = 5
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(steps):
            decoder.step(tokens, states)
        torch.cuda.synchronize()
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for event in found.events():
        if event.device_type is DeviceType.CUDA:
            sums[event.name[:60]][0] += 1
            sums[event.name[:60]][1] += event.time_range.elapsed_us() / 1e6
    ordered = sorted(sums.items(), key=lambda item: -item[1][1])
    return {name: (round(count / steps), took / steps) for name, (count, took) in ordered}


if __name__ == "__main__":
    main()
