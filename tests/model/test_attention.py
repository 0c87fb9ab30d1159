"""Attention over a text that is read in parts, against the softmax of all scores."""

import pytest
import torch
from torch import Tensor

from model.layers import attention


def plain(query: Tensor, key: Tensor, value: Tensor, past: int, scale: float) -> Tensor:
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
    scores = scale * query @ key.transpose(-1, -2)
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).triu(past + 1)
    return scores.masked_fill(later, float("-inf")).softmax(-1) @ value


@pytest.mark.parametrize("grad", [False, True], ids=["reading", "training"])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(8, 2, 64), (4, 4, 32), (6, 1, 16)])
@pytest.mark.parametrize(("past", "seqlen"), [(1, 2), (100, 37), (64, 300)])
@pytest.mark.parametrize("size", [1.0, 30.0], ids=["even", "peaked"])
def test_queries_after_others_see_those_before_and_their_own(
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    heads: int,
    kv_heads: int,
    head_dim: int,
    past: int,
    seqlen: int,
    size: float,
    grad: bool,
) -> None:
    monkeypatch.setattr(attention, "_MASK_ELEMENTS", 2000)
    torch.manual_seed(0)
    query = torch.randn(2, seqlen, heads, head_dim, dtype=torch.float64, device=device).transpose(1, 2)
    buffer = torch.randn(2, 2, kv_heads, past + seqlen + 5, head_dim, dtype=torch.float64, device=device)
    key, value = size * buffer[0, :, :, : past + seqlen], buffer[1, :, :, : past + seqlen]  # views, as in a state
    query.requires_grad_(grad)
    with torch.set_grad_enabled(grad):
        attended = attention._attend_after(query, key, value, past, 0.2)
        expected = plain(query, key, value, past, 0.2)
    assert torch.allclose(attended, expected, rtol=0, atol=1e-12)
    if grad:
        weights = torch.randn_like(expected)
        actual, wanted = (torch.autograd.grad((out * weights).sum(), query)[0] for out in (attended, expected))
        assert torch.allclose(actual, wanted, rtol=0, atol=1e-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the fused kernel in half precision is a GPU's")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_dim", [12, 64, 128], ids=["no fused kernel", "64", "128"])
def test_half_precision_is_as_good_as_with_a_mask(dtype: torch.dtype, head_dim: int) -> None:
    past, seqlen = 200, 77
    query = torch.randn(2, seqlen, 8, head_dim, dtype=dtype, device="cuda").transpose(1, 2)
    key, value = (torch.randn(2, 2, past + seqlen, head_dim, dtype=dtype, device="cuda") for _ in range(2))
    with torch.no_grad():
        assert (attention._telling_sums(query) is None) == (head_dim == 12)
        attended = attention._attend_after(query, key, value, past, 0.2)
        masked = attention._masked(query, key, value, past, 0.2)
    expected = plain(query.double(), key.double(), value.double(), past, 0.2)
    assert (attended - expected).norm() <= 2 * (masked - expected).norm() + 1e-4 * expected.norm()
