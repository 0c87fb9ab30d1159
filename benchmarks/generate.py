"""Greedy generation of one row against transformers on the same weights.

    python -m benchmarks.generate [--rounds 5] [--new-tokens 64]

Both in this process, taking turns, medians over whole generate() calls, prompt included.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import model
from benchmarks.machine import machine
from benchmarks.peer import OURS, THEIRS, THREADS, checkpoint_directory, interleaved_medians, load, make_checkpoint

PROMPT = 32


def generate(peer: str, lm: nn.Module, prompt: Tensor, new_tokens: int) -> Tensor:
    """Prompt and greedy continuation."""
    if peer == OURS:
        return model.generate(lm, prompt, max_new_tokens=new_tokens)
    return lm.generate(prompt, max_new_tokens=new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    print(machine())
    with checkpoint_directory() as name:
        make_checkpoint(Path(name))
        models = {peer: load(peer, Path(name)).eval() for peer in (OURS, THEIRS)}
    prompt = torch.randint(0, 8192, (1, PROMPT))
    outputs: dict[str, Tensor] = {}

    def timed(peer: str) -> float:
        start = time.perf_counter()
        outputs[peer] = generate(peer, models[peer], prompt, args.new_tokens)
        return time.perf_counter() - start

    seconds = interleaved_medians({peer: lambda peer=peer: timed(peer) for peer in models}, args.rounds)
    for peer in (OURS, THEIRS):
        print(f"{peer:14}{args.new_tokens / seconds[peer]:10.0f} new tokens/s")
    same = bool(torch.equal(outputs[OURS], outputs[THEIRS]))
    print(f"{OURS} / {THEIRS}: {seconds[THEIRS] / seconds[OURS]:.2f}x, same tokens: {same}")


if __name__ == "__main__":
    main()
