"""A Mamba2-hybrid language model. Needs torch and safetensors only."""

from model.checkpoints import load_pretrained, save_pretrained
from model.config import PRESETS, HybridConfig
from model.generate import generate, generate_stream
from model.hybrid import HybridLM, HybridOutput
from model.state import DecodeState

__all__ = [
    "PRESETS",
    "DecodeState",
    "HybridConfig",
    "HybridLM",
    "HybridOutput",
    "generate",
    "generate_stream",
    "load_pretrained",
    "save_pretrained",
]
