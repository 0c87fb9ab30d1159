"""What a checkpoint format is: how to know it, its configuration, and its key map."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from model.checkpoints.keymap import Entry
from model.config import HybridConfig
from model.hybrid import HybridLM


@dataclass(frozen=True)
class Format:
    """A checkpoint format.

    Attributes:
        model_type: `model_type` in its config.json.
        read_config: the rest of config.json -> HybridConfig; ValueError for what the model cannot express.
        write_config: HybridConfig -> all of config.json but `model_type`; ValueError likewise.
        entries: the key map of a model; entries of parameters that the model lacks are skipped.
        ignored: keys of tensors that may be there and say nothing new.
    """

    model_type: str
    read_config: Callable[[dict[str, Any]], HybridConfig]
    write_config: Callable[[HybridConfig], dict[str, Any]]
    entries: Callable[[HybridLM], Iterable[Entry]]
    ignored: Callable[[HybridConfig], frozenset[str]] = lambda config: frozenset()
