"""A vocabulary that grows leaves what was learned."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from model import HybridConfig, HybridLM, load_pretrained, save_pretrained
from model.vocabulary import extend_vocabulary


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_old_tokens_keep_their_logits_and_new_ones_have_the_mean(tiny: HybridConfig, tied, dtype, tmp_path) -> None:
    model = HybridLM(dataclasses.replace(tiny, tie_embeddings=tied)).to(dtype).eval()
    ids = torch.randint(0, tiny.vocab_size, (2, 30))
    before = model(ids).logits
    more = extend_vocabulary(model, tiny.vocab_size + 5)
    after = more(ids).logits
    assert after.shape[-1] == tiny.vocab_size + 5
    assert torch.equal(after[..., : tiny.vocab_size], before)
    mean = model.head_weight.float().mean(0)
    assert torch.allclose(more.head_weight[-1].float(), mean, atol=1e-3)
    assert more.layers[0].mixer.scan.A_log.dtype == torch.float32
    more(ids, labels=ids).loss.backward()  # it trains, the new rows too
    assert more.embedding.weight.grad is not None
    assert more.embedding.weight.grad.shape[0] == tiny.vocab_size + 5
    save_pretrained(more, tmp_path)
    assert load_pretrained(tmp_path).config.vocab_size == tiny.vocab_size + 5


def test_it_cannot_shrink(tiny: HybridConfig) -> None:
    with pytest.raises(ValueError, match="can only grow, not shrink to 5"):
        extend_vocabulary(HybridLM(tiny), 5)
