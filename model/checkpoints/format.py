"""What a checkpoint format is: how to know it, its configuration, and its key map."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.checkpoints.files import Source
from model.checkpoints.keymap import Entry
from model.config import HybridConfig
from model.hybrid import HybridLM

Fields = dict[str, Any]
"""A configuration as its JSON file has it."""


@dataclass(frozen=True)
class Format:
    """A checkpoint format.

    Attributes:
        recognises: whether a directory is one, by its config.json (None where it has none).
        read_config: the directory's configuration; ValueError for what the model cannot express.
        write_config: the configuration as the format has it; ValueError likewise.
        reread: what `read_config` would make of that.
        open: the directory's tensors.
        entries: the key map of a model; entries of parameters that the model lacks are skipped.
        write: writes a directory.
    """

    recognises: Callable[[Path, Fields | None], bool]
    read_config: Callable[[Path], HybridConfig]
    write_config: Callable[[HybridConfig], Fields]
    reread: Callable[[Fields], HybridConfig]
    open: Callable[[Path], Source]
    entries: Callable[[HybridLM], Iterable[Entry]]
    write: Callable[[Path, HybridLM, Fields], None]
