"""gigatoken, an optional package: byte-pair encoding tens of times as fast as Hugging Face's `tokenizers`.

It is young, so whoever encodes with it compares the ids with those of `tokenizers` first (`pipeline.tokenize.fast`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np


class FastEncoder:
    """Text to ids by gigatoken, in the calling thread."""

    def __init__(self, tokenizer_json: str) -> None:
        """
        Args:
            tokenizer_json: the content of a tokenizer.json. Its special tokens are left out: gigatoken would find
                them in plain text.

        Raises:
            ValueError: gigatoken is not installed, or does not take this tokenizer.
        """
        try:
            from gigatoken.gigatoken_rs import load_hf_json
        except ImportError as error:
            raise ValueError(f"gigatoken cannot be imported ({error})") from None
        content = json.loads(tokenizer_json)
        content["added_tokens"] = [token for token in content["added_tokens"] if not token["special"]]
        try:
            self._backend = load_hf_json(json.dumps(content))
        except Exception as error:  # the binding raises nothing narrower
            raise ValueError(f"gigatoken does not take this tokenizer: {str(error).splitlines()[0]}") from None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        return self._backend.encode_batch_list(list(texts), parallel=False)

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts one after another (n,) uint32, and how many each has (texts,) int64.

        One text at a time: for many at once gigatoken imports `awkward`, which takes as long as encoding 50 MB.
        """
        found = [self._backend.encode(text) for text in texts]
        lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        return np.concatenate([np.empty(0, dtype=np.uint32), *found]), lengths
