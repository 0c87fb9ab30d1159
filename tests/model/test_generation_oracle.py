"""transformers' generate is the oracle of greedy generation: each row of a batch against a call of its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model import HybridLM, generate, load_pretrained, prefill

# Older ones (seen: 5.17) compute another function where n_groups is above 1.
transformers = pytest.importorskip("transformers", minversion="5.23")


@pytest.fixture(params=[1, 4])
def models(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, HybridLM]:
    """Theirs and ours, of the same weights."""
    config = transformers.Mamba2Config(
        num_heads=8,
        head_dim=16,
        vocab_size=96,
        hidden_size=64,
        state_size=16,
        num_hidden_layers=3,
        chunk_size=16,
        n_groups=request.param,
    )
    theirs = transformers.Mamba2ForCausalLM(config).eval()
    for name, parameter in theirs.named_parameters():
        if "A_log" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    theirs.save_pretrained(tmp_path)
    return theirs, load_pretrained(tmp_path)


def expected(theirs: Any, prompt: Tensor, **options: float) -> Tensor:
    options = {"max_new_tokens": 30, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, **options}
    return theirs.generate(prompt[None], **options)[0]


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.4}])
def test_rows_of_different_lengths_in_chunks(models: tuple[Any, HybridLM], options: dict[str, float]) -> None:
    theirs, ours = models
    prompts = [torch.randint(0, 96, (length,)) for length in (9, 2, 40, 9, 17)]
    rows = generate(ours, prompts, max_new_tokens=30, prefill_chunk=8, **options)
    for prompt, row in zip(prompts, rows, strict=True):
        assert torch.equal(row, expected(theirs, prompt, **options))


def test_rows_that_share_a_context_end_on_their_own(models: tuple[Any, HybridLM]) -> None:
    theirs, ours = models
    context = torch.randint(0, 96, (25,))
    prompts = [torch.cat([context, torch.randint(0, 96, (length,))]) for length in (3, 1, 8)]
    eos = int(expected(theirs, prompts[0])[len(prompts[0]) + 4])
    rows = generate(ours, prompts, max_new_tokens=30, eos_token_id=eos, state=prefill(ours, context[None]))
    for prompt, row in zip(prompts, rows, strict=True):
        assert torch.equal(row, expected(theirs, prompt, eos_token_id=eos))
