"""What a longer context and more rows cost: time per token and prefill at two lengths, 16 rows over one, on a CPU.

    python -m benchmarks.context [--models mamba2 hybrid mamba2-130m hybrid-130m] [--lengths 1024 65536]

Ratios of the same model with itself. What is compared takes turns in one process, a few steps of each, and the median
of the turns' ratios is shown with the least and the largest: a busy machine slows both sides of a turn alike. What
one row of a small model needs lies in a processor's cache, what 16 need does not: batching shows at 130M's width.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch

import model
from benchmarks.inference import MODELS, SIZES
from benchmarks.machine import machine
from benchmarks.peer import THREADS

STEPS = 8
"""Tokens decoded in a turn; one more before them brings the weights and the state back into the cache."""
ROWS = 16


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["mamba2", "hybrid"])
    parser.add_argument("--lengths", type=int, nargs=2, default=[1024, 65536], metavar=("SHORT", "LONG"))
    parser.add_argument("--prefills", type=int, nargs=2, default=[16384, 32768], metavar=("SHORT", "LONG"))
    parser.add_argument("--turns", type=int, default=25)
    parser.add_argument("--prefill-turns", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    print(machine())
    (short, long), (half, whole) = arguments.lengths, arguments.prefills
    for name in arguments.models:
        torch.manual_seed(0)
        lm = model.HybridLM(model.HybridConfig(**SIZES | MODELS[name][2])).eval()
        print(f"\n{name}: {MODELS[name][2]['pattern']}")
        tokens = 1 + arguments.turns * (1 + STEPS)
        for what, other, of_rows in (
            (f"time per token at {long} over {short}", (1, long), lambda ratio: ratio),
            (f"tokens/s of {ROWS} rows over one, at {short}", (ROWS, short), lambda ratio: ROWS / ratio),
        ):
            one = decode(stream(lm, 1, short, tokens))
            ratios = in_turns(decode(stream(lm, *other, tokens)), one, arguments.turns)
            say(what, [of_rows(ratio) for ratio in ratios])
        say(
            f"prefill time of {whole} tokens over {half}",
            in_turns(
                lambda lm=lm: seconds(stream(lm, 1, whole, 1)),
                lambda lm=lm: seconds(stream(lm, 1, half, 1)),
                arguments.prefill_turns,
            ),
        )


def stream(lm: model.HybridLM, rows: int, length: int, new: int) -> Iterator[torch.Tensor]:
    """Generation after a random prompt; the first token costs the prefill."""
    prompt = torch.randint(1, SIZES["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(1))
    return model.generate_stream(lm, prompt, max_new_tokens=new)


def seconds(tokens: Iterator[torch.Tensor]) -> float:
    """Until the next token."""
    start = time.perf_counter()
    next(tokens)
    return time.perf_counter() - start


def decode(tokens: Iterator[torch.Tensor]) -> Callable[[], float]:
    """A turn of decoding, after the prefill: median seconds per token."""
    next(tokens)

    def turn() -> float:
        next(tokens)
        return statistics.median(seconds(tokens) for _ in range(STEPS))

    return turn


def in_turns(first: Callable[[], float], second: Callable[[], float], turns: int) -> list[float]:
    """Seconds of the first over seconds of the second, in each turn."""
    return [first() / second() for _ in range(turns)]


def say(what: str, ratios: list[float]) -> None:
    """A line of the table."""
    print(f"{what:44} {statistics.median(ratios):6.3f}  ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


if __name__ == "__main__":
    main()
