"""Held-out prompts and the responses to them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from pipeline.chat.template import template_for
from pipeline.chat.tokenizer import Tokenizer, load_tokenizer
from pipeline.evaluate.responses import respond, sample_prompts
from pipeline.shards.tables import CONVERSATIONS, columns
from pipeline.tokenize.bpe import train_bpe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_bpe(["what follows from what was said before"], vocab_size=300).save(str(path))
    return load_tokenizer(path)


@pytest.fixture
def conversations(tmp_path) -> Path:
    """Twenty conversations over two shards; every fifth has a prompt that is too long, some have two exchanges."""
    rows = []
    for number in range(20):
        messages = [{"role": "user", "content": f"question {number} " + "long " * (200 if number % 5 == 0 else 1)}]
        messages += [{"role": "assistant", "content": f"answer {number}"}]
        if number % 3 == 0:
            messages += [{"role": "user", "content": "and then?"}, {"role": "assistant", "content": f"then {number}"}]
        rows.append({"id": f"r{number:02}", "source": "s", "group": "g", "messages": messages})
    for start, shard in ((0, 99_999), (10, 100_000)):
        table = pl.DataFrame(rows[start : start + 10], schema=columns(CONVERSATIONS, split=False))
        table.write_parquet(tmp_path / f"conversations-{shard:05}.parquet")
    return tmp_path


def test_prompts_are_drawn_with_a_fixed_seed_and_end_where_the_last_answer_begins(conversations, tokenizer):
    prompts = sample_prompts(conversations, tokenizer, count=6, longest=100)
    assert prompts == sample_prompts(conversations, tokenizer, count=6, longest=100)
    assert len(prompts) == 6
    assert [prompt.id for prompt in prompts] == sorted(prompt.id for prompt in prompts)
    template = template_for(tokenizer)
    records = {row["id"]: row["messages"] for row in pl.read_parquet(conversations).iter_rows(named=True)}
    for prompt in prompts:
        ids, mask = template.encode(records[prompt.id])
        assert len(prompt.ids) <= 100
        assert ids[: len(prompt.ids)].tolist() == prompt.ids
        answer = ids[len(prompt.ids) :]
        assert mask[len(prompt.ids) :].all()
        assert tokenizer.decode(answer) == prompt.reference == records[prompt.id][-1]["content"]


def test_too_long_prompts_are_left_out_and_fewer_than_asked_for_is_no_error(conversations, tokenizer):
    prompts = sample_prompts(conversations, tokenizer, count=100, longest=100)
    assert len(prompts) == 16
    assert all(int(prompt.id[1:]) % 5 for prompt in prompts)
    assert sample_prompts(conversations / "none", tokenizer, count=3, longest=100) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pl.lit(None, dtype=pl.String).alias("id"), r"column id has 10 nulls in 10 records"),
        (pl.col("messages").list.head(0), r"column messages has no messages in 10 of 10 records"),
        (pl.lit(-1).alias("messages"), r"'messages': 'Int32'.*, not the columns of conversations"),
    ],
)
def test_a_damaged_shard_is_named(conversations, tokenizer, damage, message):
    shard = conversations / "conversations-100000.parquet"
    pl.read_parquet(shard).with_columns(damage).write_parquet(shard)
    with pytest.raises(ValueError, match=rf"{shard}:? .*{message}.* run `dvc repro`"):
        sample_prompts(conversations, tokenizer, count=3, longest=100)


def test_a_response_ends_at_the_end_token(conversations, tokenizer, monkeypatch):
    prompts = sample_prompts(conversations, tokenizer, count=3, longest=100)
    end = template_for(tokenizer).end_id
    said, babble = tokenizer.encode([" what follows ", "never read"])

    def generate(model, ids, *, max_new_tokens, eos_token_id):
        assert (model, max_new_tokens, eos_token_id) == ("the model", 50, end)
        return torch.cat([ids, torch.tensor([[*said, end, *babble]])], dim=1)

    monkeypatch.setattr("pipeline.evaluate.responses.generate", generate)
    assert respond("the model", tokenizer, prompts, 50, CPU) == ["what follows"] * 3
