"""What the card can do at most, and how a table of figures is kept."""

import json
import os
from pathlib import Path
from statistics import median
from typing import Any

import torch
from triton.testing import do_bench


def seconds(function: Any) -> float:
    """Median of many runs, on the device's clock."""
    return float(do_bench(function, return_mode="median")) / 1e3


def device_seconds(function: Any, runs: int = 30) -> float:
    """Median of the device's own time, none of it spent waiting for the host.

    Before each run the device sleeps long enough for the host to get ahead, and its caches are overwritten.
    """
    caches = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    took = []
    for _ in range(runs + 3):
        caches.zero_()
        torch.cuda._sleep(40_000_000)  # cycles: some 20 ms
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        end.synchronize()
        took.append(begin.elapsed_time(end))
    return median(took[3:]) / 1e3


def ceilings() -> dict[str, Any]:
    """Bytes per second of a large copy, read and written, and bf16 FLOP per second of a large product.

    Raises:
        SystemExit: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise SystemExit(
            f"torch {torch.__version__} sees no GPU to measure: does `nvidia-smi` name one, was torch built for CUDA?"
        )
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = 2 * source.numel() / seconds(lambda: target.copy_(source))
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = 2 * 8192**3 / seconds(lambda: a @ b)
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "copy": copy, "product": product}


def say(found: dict[str, Any]) -> None:
    """The first line of every table."""
    print(
        f"{found['device']}, torch {found['torch']}: copy {found['copy'] / 1e12:.2f} TB/s, "
        f"bf16 product {found['product'] / 1e12:.0f} TFLOP/s",
        flush=True,
    )


def keep(path: str | None, found: dict[str, Any]) -> None:
    """As JSON, whole or not at all."""
    if path is None:
        return
    draft = Path(f"{path}.tmp")
    draft.write_text(json.dumps(found, indent=2) + "\n")
    os.replace(draft, path)
