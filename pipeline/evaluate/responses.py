"""Responses to held-out prompts, beside their references."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from model import HybridLM, generate
from pipeline.chat.template import template_for
from pipeline.chat.tokenizer import Tokenizer
from pipeline.shards import reading_order
from pipeline.shards.tables import CONVERSATIONS, read_shard, require_columns


@dataclass(frozen=True)
class Prompt:
    """A held-out conversation up to its last assistant turn, and that turn."""

    id: str
    text: str
    ids: list[int]
    reference: str


def sample_prompts(conversations: Path, tokenizer: Tokenizer, count: int, longest: int) -> list[Prompt]:
    """`count` prompts (or as many as there are) of at most `longest` tokens, drawn with a fixed seed, in file order."""
    template = template_for(tokenizer)
    files = sorted(conversations.glob("conversations-*.parquet"), key=lambda file: reading_order(file.name))
    if not files:
        return []
    require_columns(conversations, {file.name: CONVERSATIONS for file in files}, split=False)
    records = pl.concat([read_shard(file, ["id", "messages"]) for file in files])
    chosen: list[tuple[int, Prompt]] = []
    for index in np.random.default_rng(0).permutation(len(records)):
        if len(chosen) == count:
            break
        record = records.row(int(index), named=True)
        messages = record["messages"]
        last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
        ids = template.encode_prompt(messages[:last])
        if len(ids) <= longest:
            text = messages[last - 1]["content"] if last else ""
            chosen.append((int(index), Prompt(record["id"], text, ids, messages[last]["content"])))
    return [prompt for _, prompt in sorted(chosen, key=lambda pair: pair[0])]


def respond(
    model: HybridLM, tokenizer: Tokenizer, prompts: Iterable[Prompt], max_new_tokens: int, device: torch.device
) -> list[str]:
    """The model's greedy response to each prompt."""
    end = template_for(tokenizer).end_id
    responses = []
    for prompt in prompts:
        ids = torch.tensor([prompt.ids], device=device)
        out = generate(model, ids, max_new_tokens=max_new_tokens, eos_token_id=end)[0, len(prompt.ids) :].tolist()
        responses.append(tokenizer.decode(out[: out.index(end)] if end in out else out).strip())
    return responses
