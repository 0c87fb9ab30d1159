"""Packed documents behave as the same documents alone."""

import dataclasses

import pytest
import torch
from torch import Tensor

from model import HybridConfig, HybridLM
from tests.model.compare import assert_agree, error

LENGTHS = (1, 2, 17, 3, 40, 12)


@pytest.fixture(params=[None, 1e4], ids=["no-rope", "rope"])
def model(request: pytest.FixtureRequest, tiny: HybridConfig, device: torch.device) -> HybridLM:
    return HybridLM(dataclasses.replace(tiny, rope_theta=request.param)).to(device).double()


def make_documents(device: torch.device) -> list[Tensor]:
    return [torch.randint(0, 512, (1, length), device=device) for length in LENGTHS]


def number(indices: tuple[int, ...], device: torch.device) -> Tensor:
    lengths = torch.tensor(LENGTHS, device=device)
    return torch.tensor(indices, dtype=torch.int32, device=device).repeat_interleave(lengths).unsqueeze(0)


@pytest.mark.parametrize("indices", [(0, 1, 2, 3, 4, 5), (5, 0, 5, 0, 9, 0)], ids=["rising", "reused"])
def test_packed_equals_alone(model: HybridLM, device: torch.device, indices: tuple[int, ...]) -> None:
    documents = make_documents(device)
    packed_ids, seq_idx = torch.cat(documents, dim=1), number(indices, device)
    parameters = list(model.parameters())
    targets = sum(length - 1 for length in LENGTHS)

    alone = [model(document, labels=document) for document in documents]
    loss = sum(o.loss * (length - 1) for o, length in zip(alone, LENGTHS, strict=True)) / targets
    packed = model(packed_ids, labels=packed_ids, seq_idx=seq_idx)

    assert_agree([packed.logits, packed.loss], [torch.cat([o.logits for o in alone], dim=1), loss], 1e-9)
    names = [name for name, _ in model.named_parameters()]
    actual = torch.autograd.grad(packed.loss, parameters)
    for name, a, e in zip(names, actual, torch.autograd.grad(loss, parameters), strict=True):
        assert error(a, e) < 1e-8, name


def test_nothing_reaches_another_document(model: HybridLM, device: torch.device) -> None:
    packed_ids, seq_idx = torch.cat(make_documents(device), dim=1), number((0, 1, 2, 3, 4, 5), device)
    changed = packed_ids.clone()
    changed[:, :20] = (changed[:, :20] + 1) % 512
    with torch.no_grad():
        before, after = (model(ids, seq_idx=seq_idx).logits for ids in (packed_ids, changed))
    assert_agree([before[:, 20:]], [after[:, 20:]], 1e-12)
    assert not torch.equal(before[:, :20], after[:, :20])
