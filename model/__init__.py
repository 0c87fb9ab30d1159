"""A Mamba2-hybrid language model. Needs torch and safetensors only.

The names below are imported when first used: whoever wants `HybridConfig` alone does not pay for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from model.config import PRESETS, HybridConfig

if TYPE_CHECKING:
    from model.checkpoints import load_pretrained, save_pretrained
    from model.generation import generate, generate_stream, prefill
    from model.hybrid import HybridLM, HybridOutput
    from model.state import DecodeState
    from model.state_files import load_state, save_state

__all__ = [
    "PRESETS",
    "DecodeState",
    "HybridConfig",
    "HybridLM",
    "HybridOutput",
    "generate",
    "generate_stream",
    "load_pretrained",
    "load_state",
    "prefill",
    "save_pretrained",
    "save_state",
]

_HOMES = {
    "DecodeState": "model.state",
    "HybridLM": "model.hybrid",
    "HybridOutput": "model.hybrid",
    "generate": "model.generation",
    "generate_stream": "model.generation",
    "load_pretrained": "model.checkpoints",
    "load_state": "model.state_files",
    "prefill": "model.generation",
    "save_pretrained": "model.checkpoints",
    "save_state": "model.state_files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
