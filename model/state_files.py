"""Decode states as files: what a model knows of a text that it need not read again."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.hybrid import HybridLM
from model.state import AttentionState, DecodeState, LayerState, MambaState

_FORMAT = "mamba2-hybrid-decode-state"
_SAMPLED = 64
"""Values, from end to end of each parameter, that tell one model's weights from another's."""


def save_state(model: HybridLM, state: DecodeState, path: str | Path) -> None:
    """Write a state of `model` to a safetensors file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: cannot be written: it is no file")
    tensors = {"ids": state.ids}
    for i, layer in enumerate(state.layers):
        tensors |= {f"layers.{i}.{name}": tensor for name, tensor in _named_tensors(layer).items()}
    partial = path.with_name(f"{path.name}.partial")
    metadata = {"format": _FORMAT, "model": _digest(model)}
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata=metadata)
        partial.replace(path)
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def load_state(model: HybridLM, path: str | Path) -> DecodeState:
    """Read a state that `save_state` wrote, onto the model's device.

    Raises:
        ValueError: no such file, no decode state, or one of another model (of other weights, of another dtype).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file: give one that save_state wrote")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path}: it holds no decode state: give a file that save_state wrote")
    if metadata.get("model") != _digest(model):
        raise ValueError(f"{path}: a decode state of another model: use the weights and dtype that it was made with")
    return _assemble(model, tensors, path)


def _assemble(model: HybridLM, tensors: dict[str, Tensor], path: Path) -> DecodeState:
    ids = tensors.get("ids", torch.empty(0))
    if ids.dim() != 2 or ids.dtype != torch.int64 or ids.numel() == 0:
        raise ValueError(f"{path}: it is damaged, its ids are {ids.dtype} {tuple(ids.shape)}: make it again")
    if ids.min() < 0 or ids.max() >= model.config.vocab_size:
        raise ValueError(f"{path}: it is damaged, its ids are not all in the vocabulary: make it again")
    rows, length = ids.shape
    device = model.embedding.weight.device
    layers: list[LayerState] = []
    for i, empty in enumerate(model.new_state(rows).layers):
        found = []
        for name, fresh in _named_tensors(empty).items():
            tensor, shape = tensors.get(f"layers.{i}.{name}"), list(fresh.shape)
            if isinstance(empty, AttentionState):
                shape[2] = length
            if tensor is None or list(tensor.shape) != shape or not _is_number(tensor, fresh):
                raise ValueError(f"{path}: it is damaged, layers.{i}.{name} is missing or misshapen: make it again")
            found.append(tensor.to(device))
        match empty:
            case MambaState():
                layers.append(MambaState(*found))
            case AttentionState():
                layers.append(AttentionState(torch.stack(found), length))
            case None:
                layers.append(None)
    return DecodeState(tuple(layers), ids.to(device))


def _is_number(tensor: Tensor, fresh: Tensor) -> bool:
    """Of the dtype that the model would have, or of that of an autocast, and finite."""
    return tensor.dtype in (fresh.dtype, torch.bfloat16, torch.float16) and bool(tensor.isfinite().all())


def _named_tensors(layer: LayerState) -> dict[str, Tensor]:
    match layer:
        case MambaState(conv, ssm):
            return {"conv": conv, "ssm": ssm}
        case AttentionState():
            return {"keys": layer.keys, "values": layer.values}
    return {}


def _digest(model: HybridLM) -> str:
    """Of the configuration and of some values of each parameter: training changes them all."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        sampled = flat[:: max(1, len(flat) // _SAMPLED)].cpu().contiguous()
        digest.update(f"{name} {parameter.dtype}".encode() + bytes(sampled.view(torch.uint8).tolist()))
    return digest.hexdigest()
