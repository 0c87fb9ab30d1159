"""The native format: every field of the configuration and every parameter under its own name.

The parameters are whole (z, x, B, C and dt apart), so the files do not depend on how a model was split over
devices.
"""

from model.checkpoints.format import Fields
from model.checkpoints.huggingface import LONGEST, huggingface_format
from model.checkpoints.keymap import Entry
from model.config import HybridConfig
from model.hybrid import HybridLM


def _read(fields: Fields) -> HybridConfig:
    return HybridConfig.from_dict({**fields, LONGEST: None})  # which is the caller's


def _entries(model: HybridLM) -> list[Entry]:
    return [Entry(name, (name,)) for name, _ in model.named_parameters()]


FORMAT = huggingface_format("mamba2-hybrid", read_fields=_read, write_fields=HybridConfig.to_dict, entries=_entries)
