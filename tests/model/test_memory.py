"""Memory that is foretold is the memory that a real run takes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from model import PRESETS, HybridConfig, HybridLM
from model.memory import activations, decoding_bytes, kept_by_autograd, on_meta, parameters_by_part, parameters_per_rank

HYBRID = dataclasses.replace(PRESETS["tiny"], n_groups=4, n_heads=8, n_kv_heads=4)


@pytest.mark.parametrize("name", PRESETS)
def test_the_parts_make_the_whole(name: str) -> None:
    config = PRESETS[name]
    assert sum(parameters_by_part(on_meta(config)).values()) == config.num_parameters()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pattern", ["MM", "M-M*-M-", "**"])
def test_activations_are_what_autograd_keeps_in_a_real_step(pattern: str, dtype: torch.dtype) -> None:
    config = dataclasses.replace(HYBRID, pattern=pattern)
    foretold = activations(config, 2, 64, dtype)
    model = HybridLM(config).to(dtype)
    ids = torch.randint(0, config.vocab_size, (2, 64))
    with kept_by_autograd(model) as kept:
        loss = model(ids, labels=ids).loss
    loss.backward()
    # Layers share the residual stream between them, which a whole model keeps once.
    assert sum(kept.values()) == pytest.approx(foretold.recompute_none, rel=0.1)
    assert foretold.recompute_full < foretold.recompute_none


def test_decoding_is_what_a_state_holds() -> None:
    model = HybridLM(HYBRID)
    state = model.new_state(3)
    state = model(torch.zeros(3, 64, dtype=torch.int64), state=state).state
    constant = sum(t.nbytes for layer in state.layers if isinstance(layer, tuple) for t in layer)
    cache = sum(layer.keys.nbytes + layer.values.nbytes for layer in state.layers if hasattr(layer, "keys"))
    assert decoding_bytes(HYBRID, 3, 64, torch.float32) == (constant, cache)
    assert decoding_bytes(HYBRID, 3, 128, torch.float32) == (constant, 2 * cache)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_all_but_the_norms(ranks: int) -> None:
    model = on_meta(HYBRID)
    norms = sum(
        p.numel() for name, p in model.named_parameters() if name.endswith("norm.weight") and "mixer" not in name
    )
    total = HYBRID.num_parameters()
    assert parameters_per_rank(model, ranks) == norms + (total - norms) // ranks


def test_a_layout_that_does_not_fit_is_named(tiny: HybridConfig) -> None:
    with pytest.raises(ValueError, match="n_groups is 1, which 2 tensor-parallel ranks cannot share"):
        parameters_per_rank(on_meta(tiny), 2)
