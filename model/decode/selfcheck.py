"""A small model for the decoding kernels, and torch's results in fp64."""

from functools import cache

import torch
from torch import Tensor

from model.config import HybridConfig
from model.decode import plain
from model.decode.graph import Graphed
from model.hybrid import Block, HybridLM
from model.ops._selfcheck import Pair, trusted

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Largest difference, relative to the largest logit, that rounding explains on a small model."""


def passes(model: HybridLM) -> bool:
    """Compare logits of a few positions of a small model with this one's heads and states; once for each."""
    config, weight = model.config, model.embedding.weight
    attends = "*" in config.layers
    small = HybridConfig(
        pattern=2 * "".join(sorted(set(config.layers))),
        vocab_size=203,
        d_model=512,
        d_state=config.d_state,
        headdim=config.headdim,
        n_mamba_heads=4,
        n_groups=2,
        d_conv=config.d_conv,
        n_heads=config.n_heads // config.n_kv_heads if attends else 1,
        n_kv_heads=1,
        head_dim=config.attention_head_dim if attends else None,
        rope_theta=config.rope_theta,
        partial_rotary_factor=config.partial_rotary_factor,
        d_ff=1100,
        mlp_activation=config.mlp_activation,
        residual_in_fp32=config.residual_in_fp32,
    )
    return _passes(small, weight.device, weight.dtype)


@cache
def _passes(config: HybridConfig, device: torch.device, dtype: torch.dtype) -> bool:
    kernels = f"the kernels for decoding in {dtype} on {device}"
    return trusted(kernels, lambda: _compare(config, device, dtype), TOLERANCE[dtype])


def _compare(config: HybridConfig, device: torch.device, dtype: torch.dtype) -> Pair:
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    devices = [device] if device.type == "cuda" else []
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices), torch.device(device):
        torch.manual_seed(0)
        model = HybridLM(config).to(dtype)
        exact = HybridLM(config).double()
        exact.load_state_dict(model.state_dict())
        for rows in (1, 2, 5):
            decoder, layers, head = Graphed(model), [plain.Layer(block) for block in _blocks(exact)], plain.Head(exact)
            mine, other = list(model.new_state(rows).layers), list(exact.new_state(rows).layers)
            for _ in range(4):  # the first is no replay
                tokens = torch.randint(config.vocab_size, (rows,))
                ours.append(decoder.step(tokens, mine))
                residual = exact.embed(tokens)
                for i, layer in enumerate(layers):
                    residual, other[i] = layer(residual, other[i])
                theirs.append(head(residual))
    return ours, theirs


def _blocks(model: HybridLM) -> list[Block]:
    return [block for block in model.layers if isinstance(block, Block)]
