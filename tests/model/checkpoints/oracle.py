"""transformers as the independent writer, reader and calculator of checkpoints."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from model import generate, load_pretrained, save_pretrained
from tests.model.compare import assert_agree, error

# Older ones (seen: 5.17) compute another function where n_groups is above 1.
transformers = pytest.importorskip("transformers", minversion="5.23")

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 32}


def make_mamba2(**fields: Any) -> Any:
    """A small Mamba2ForCausalLM."""
    sizes = {"num_heads": 8, "head_dim": 16, "vocab_size": 96, "hidden_size": 64, "state_size": 16}
    return make("Mamba2", **{**sizes, "num_hidden_layers": 3, "chunk_size": 16, **fields})


def make(kind: str, **fields: Any) -> Any:
    """A small random model of theirs: `kind` is the stem of its classes' names."""
    config = getattr(transformers, f"{kind}Config")(**copy.deepcopy(fields))  # it writes into dictionaries
    theirs = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for name, parameter in theirs.named_parameters():
        if "A_log" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return theirs


def read(kind: str, path: Path) -> Any:
    """Their model of a directory; nothing is missing, nothing unexpected."""
    loaded, told = getattr(transformers, f"{kind}ForCausalLM").from_pretrained(path, output_loading_info=True)
    assert not told["missing_keys"], told
    assert not told["unexpected_keys"], told
    assert not told["mismatched_keys"], told
    return loaded.eval()


def assert_same_function_and_gradients(kind: str, theirs: Any, format: str, folder: Path) -> None:
    """Logits, loss and every gradient agree to 1e-5, before and after a trip through our model."""
    theirs.save_pretrained(folder / "theirs")
    ours = load_pretrained(folder / "theirs")
    input_ids = torch.randint(0, theirs.config.vocab_size, (2, 50))
    expected, actual = theirs(input_ids, labels=input_ids), ours(input_ids, labels=input_ids)
    assert_agree([actual.logits, actual.loss], [expected.logits, expected.loss], 1e-5)

    save_pretrained(ours, folder / "back", format=format)
    back = read(kind, folder / "back")
    state = back.state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert_agree([back(input_ids).logits], [expected.logits], 1e-6)

    expected.loss.backward()
    actual.loss.backward()
    with torch.no_grad():
        for model in (theirs, ours):
            for parameter in model.parameters():
                parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    save_pretrained(ours, folder / "gradients", format=format)
    gradients = read(kind, folder / "gradients").state_dict()
    largest = max(gradient.abs().max().item() for gradient in theirs.state_dict().values())
    for name, gradient in theirs.state_dict().items():
        # A bias of the keys moves all scores alike: its gradient is 0, and what is seen of it is rounding.
        rounding = (gradients[name] - gradient).abs().max().item() <= 1e-7 * largest
        assert rounding or error(gradients[name], gradient) <= 1e-5, name


def assert_same_greedy_tokens(theirs: Any, folder: Path, new: int = 20) -> None:
    """Our generation token by token equals theirs."""
    theirs.save_pretrained(folder / "theirs")
    prompt = torch.randint(0, theirs.config.vocab_size, (1, 9))
    options = {"max_new_tokens": new, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    # Without a mask it takes a token with the id of the padding for padding.
    expected = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
    assert torch.equal(generate(load_pretrained(folder / "theirs"), prompt, max_new_tokens=new), expected)
