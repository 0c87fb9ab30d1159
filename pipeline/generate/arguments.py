"""The command line of `python -m pipeline.generate`."""

from __future__ import annotations

import argparse
from pathlib import Path

MODEL = Path("artifacts/finetune/model")


def parse(doc: str | None) -> argparse.Namespace:
    """The arguments of this process."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.generate",
        description=doc,
        epilog="One prompt is answered as text, while it is made; several, or a file, as one JSON line each, with "
        "prompt and response. Without a prompt it reads one from standard input; on a terminal it chats: Ctrl-C "
        "stops an answer, Ctrl-D ends.",
    )
    add = parser.add_argument
    add("prompt", nargs="*", help="what to answer, or with --raw to continue")
    add("--file", type=Path, metavar="FILE", help="prompts: lines of text, or .jsonl with a field prompt")
    add("--model", type=Path, default=MODEL, metavar="DIR", help=f"model and tokenizer (default: {MODEL})")
    add("--raw", action="store_true", help="continue the text as it is, without the chat template")
    add("--system", metavar="TEXT", help="what the conversation opens with")
    add("--max-new-tokens", type=int, default=256, metavar="N", help="end an answer there (default: 256)")
    add("--temperature", type=float, default=0.0, metavar="T", help="0 takes the likeliest token (default), 1 samples")
    add("--top-k", type=int, metavar="K", help="sample among the K likeliest tokens")
    add("--top-p", type=float, metavar="P", help="sample among the fewest tokens that together reach P")
    add("--min-p", type=float, metavar="P", help="sample among tokens at least P times as probable as the likeliest")
    add("--repetition-penalty", type=float, default=1.0, metavar="R", help="above 1, what occurred becomes less likely")
    add("--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be given repeatedly")
    add("--seed", type=int, metavar="N", help="the same samples again; prompt i draws as prompt 0 with N + i")
    add("--batch-size", type=int, default=8, metavar="N", help="prompts that are answered together (default: 8)")
    add("--save-state", type=Path, metavar="FILE", help="answer nothing; read --system and the prompt, keep the state")
    add("--state", type=Path, metavar="FILE", help="go on from there: what it has read comes before each prompt")
    return parser.parse_args()
