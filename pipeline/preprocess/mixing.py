"""How often each training record is written, so that sources stand in the proportions that the user wants.

Source i of n_i characters gets the share p_i proportional to (n_i w_i)^(1 / T): weights w, temperature T (as for
languages in Devlin et al. 2019, multilingual BERT, and Conneau et al. 2020, XLM-R, section 3.1, where 1 / T is called
alpha). The sum of all text stays what it is: a source is written p_i / n_i * sum(n) times over, its whole part as
whole repeats and the rest with some of its records once more. Above `max_repeats` times it is cut off, and its share
stays behind (Muennighoff et al. 2023, "Scaling Data-Constrained Language Models": up to 4 epochs are almost as good
as new text).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.preprocess.hashes import U64, mix
from pipeline.preprocess.ledger import Ledger
from pipeline.preprocess.splitting import TRAIN
from pipeline.shards.tables import KINDS

if TYPE_CHECKING:
    from pipeline.params import PreprocessParams

MIXED_OUT = "mixed_out"


@dataclass(frozen=True)
class Mixture:
    """What became of a source in the training split of a kind."""

    kind: str
    source: str
    characters_in: int
    wanted_share: float
    characters_out: int


def mix_sources(ledger: Ledger, sources: Sequence[str], params: PreprocessParams) -> list[Mixture]:
    """Drop and repeat training records, of each kind apart, so that the sources have their shares.

    Raises:
        ValueError: a weight is for an unknown source, or all sources of a kind weigh 0.
    """
    for name in params.weights:
        if name not in sources:
            raise ValueError(f"preprocess.weights.{name}: there is no such source; there are {', '.join(sources)}")
    is_train = ledger.stays() & (np.asarray(ledger["split"]) == TRAIN)
    seed = mix(np.full(1, params.seed, dtype=np.uint64))
    mixtures = []
    for place, kind in enumerate(KINDS):
        rows = np.flatnonzero(is_train & (np.asarray(ledger["kind"]) == place))
        of_source = [rows[ledger["source"][rows] == code] for code in range(len(sources))]
        sizes = {name: int(ledger["characters"][own].sum()) for name, own in zip(sources, of_source, strict=True)}
        total = sum(sizes.values())
        wanted = shares(sizes, params.weights, params.temperature) if total else {}
        for name, own in zip(sources, of_source, strict=True):
            if not sizes[name]:
                continue
            times = min(round(wanted[name] / sizes[name] * total, _DIGITS), params.max_repeats)
            counts = copies(ledger["characters"][own], mix(ledger["draw"][own] ^ seed), times)
            ledger["copies"][own] = counts
            ledger.drop(own[counts == 0], MIXED_OUT)
            written = int((ledger["characters"][own] * counts).sum())
            mixtures.append(Mixture(kind, name, sizes[name], wanted[name], written))
    return mixtures


_DIGITS = 9  # of how often a source is written: 1 must be 1, whatever division left behind


def shares(characters: Mapping[str, int], weights: Mapping[str, float], temperature: float) -> dict[str, float]:
    """The share p of each source.

    Args:
        characters: of each source, more than 0 for one at least.
        weights: of some sources; the others have 1.

    Raises:
        ValueError: no source with text has a weight above 0.
    """
    sizes = {source: size * weights.get(source, 1.0) for source, size in characters.items()}
    largest = max(sizes.values())
    if not largest:
        raise ValueError(f"preprocess.weights: nothing is left to train on: {', '.join(characters)} all weigh 0")
    wanted = {source: (size / largest) ** (1 / temperature) for source, size in sizes.items()}  # no power overflows
    total = sum(wanted.values())
    return {source: part / total for source, part in wanted.items()}


def copies(characters: np.ndarray[Any, Any], draws: U64, times: float) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """How often each record of a source is written for its text to be written `times` times over.

    All are written the whole part of it; the records whose draws are lowest once more, as long as the text so
    written stays nearest to what is wanted.

    Args:
        characters: (n,) of each record.
        draws: (n,) what decides which records; equal draws go by the order of the records.
    """
    whole = int(times)
    counts = np.full(len(characters), whole, dtype=np.uint16)
    order = np.argsort(draws, kind="stable")
    so_far = np.cumsum(characters[order].astype(np.int64))
    wanted = (times - whole) * so_far[-1] if len(order) else 0
    counts[order[so_far - characters[order].astype(np.int64) / 2 < wanted]] += 1
    return counts
