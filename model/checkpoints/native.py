"""The native format: every field of the configuration and every parameter under its own name.

The parameters are whole (z, x, B, C and dt apart), so the files do not depend on how a model was split over
devices.
"""

from model.checkpoints.huggingface import huggingface_format
from model.checkpoints.keymap import Entry
from model.config import HybridConfig
from model.hybrid import HybridLM


def _entries(model: HybridLM) -> list[Entry]:
    return [Entry(name, (name,)) for name, _ in model.named_parameters()]


FORMAT = huggingface_format(
    "mamba2-hybrid", read_fields=HybridConfig.from_dict, write_fields=HybridConfig.to_dict, entries=_entries
)
