"""Room for more tokens in a trained model."""

import dataclasses

import torch

from model.hybrid import HybridLM


@torch.no_grad()
def extend_vocabulary(model: HybridLM, vocab_size: int) -> HybridLM:
    """A model with more rows in its embedding and its head; the other parameters are the given model's own.

    A new row is the mean of the old ones: a token that was never seen is then as likely as an average one, and the
    likelihoods of the old ones change by no more than its share.

    Args:
        vocab_size: at least the model's.

    Raises:
        ValueError: it is less, and rows would be lost.
    """
    old = model.config.vocab_size
    if vocab_size < old:
        raise ValueError(f"the vocabulary has {old} tokens and can only grow, not shrink to {vocab_size}")
    with torch.device("meta"):
        extended = HybridLM(dataclasses.replace(model.config, vocab_size=vocab_size))
    state = model.state_dict()
    for name in ("embedding.weight", "head.weight"):
        if name in state:
            rows = state[name]
            mean = rows.mean(0, keepdim=True, dtype=torch.float32).to(rows.dtype)
            state[name] = torch.cat([rows, mean.expand(vocab_size - old, -1)])
    extended.load_state_dict(state, assign=True)
    return extended.train(model.training)
