"""Prompts from files."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.chat.schemas import string_field


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, blank lines left out: each line is one, or in .jsonl an object with a field prompt.

    Raises:
        ValueError: no such file, none in it, or a line that is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"{path}: no such file; give one with a prompt per line") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert it") from None
    numbered = [(number, line.rstrip("\r")) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise ValueError(f"{path}: it holds no prompt; write one per line")
    if path.suffix.lower() != ".jsonl":
        return [line for _, line in numbered]
    return [_from_json(line, f"{path}:{number}") for number, line in numbered]


def _from_json(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f'{where}: expected an object such as {{"prompt": "..."}}')
    try:
        prompt = string_field(record, "prompt")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if not prompt.strip():
        raise ValueError(f"{where}: its prompt is empty")
    return prompt
