"""How often each training record is written, so that sources stand in the proportions that the user wants.

Source i of n_i characters gets the share p_i proportional to (n_i w_i)^(1 / T): weights w, temperature T (as for
languages in Devlin et al. 2019, multilingual BERT, and Conneau et al. 2020, XLM-R, section 3.1, where 1 / T is called
alpha). The sum of all text stays what it is: a source is written p_i / n_i * sum(n) times over, its whole part as
whole repeats and the rest with some of its records once more. Above `max_repeats` times it is cut off, and its share
stays behind (Muennighoff et al. 2023, "Scaling Data-Constrained Language Models": up to 4 epochs are almost as good
as new text). A kind whose training text all weighs 0 is left out whole, what is held out of it as well: to hold out
from no training has no use, and other stages take a kind that is not there.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.arrays import I64
from pipeline.preprocess.hashes import mix
from pipeline.preprocess.ledger import TRAIN, Ledger
from pipeline.preprocess.lowest import F64, Lowest, Part
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


def mix_sources(
    ledger: Ledger, sources: Sequence[str], weights: Mapping[str, float], params: PreprocessParams
) -> list[Mixture]:
    """Drop and repeat training records, of each kind apart, so that the sources have their shares.

    Args:
        weights: what sources.yaml says of them; `params.weights` comes before it, source by source.

    Raises:
        ValueError: a weight is for an unknown source, or all training text weighs 0.
    """
    known = set(sources)
    for name in params.weights:
        if name not in known:
            raise ValueError(f"preprocess.weights.{name}: there is no such source; there are {', '.join(sources)}")
    weights = {**weights, **params.weights}
    sizes = _training_characters(ledger, len(sources))
    own = {kind: _of_sources(row, sources) for kind, row in zip(KINDS, sizes, strict=True)}
    weighty = [kind for kind in KINDS if any(weights.get(name, 1.0) for name in own[kind])]
    if not weighty and (names := sorted({name for found in own.values() for name in found})):
        raise ValueError(
            f"preprocess.weights (or sources.yaml): nothing is left to train on: {', '.join(names)} weigh 0"
        )
    wanted, times = _wanted({kind: own[kind] for kind in weighty}, sizes, weights, params)
    records, written = _write_times(ledger, times, sizes, params.seed)
    for place, kind in enumerate(KINDS):
        if own[kind] and kind not in weighty:
            _leave_out(ledger, place)
            written[place] = 0
    mixtures = []
    for place, code in np.argwhere(sizes).tolist():
        figures = (int(sizes[place, code]), float(wanted[place, code]), int(written[place, code]))
        mixture = Mixture(KINDS[place], sources[code], *figures)
        if weights.get(mixture.source, 1.0) and not mixture.characters_out:
            _warn(mixture, float(times[place, code]), int(records[place, code]))
        mixtures.append(mixture)
    return mixtures


def _warn(mixture: Mixture, times: float, records: int) -> None:
    print(
        f"warning: preprocess.weights: nothing of source {mixture.source} ({mixture.kind}) is left to train on: "
        f"{times:.2g} of its {mixture.characters_in:,} characters are nearer to none than to the first drawn of its "
        f"records ({records:,}); raise its weight to keep some, or set it to 0 to leave it out",
        file=sys.stderr,
    )


def _training_characters(ledger: Ledger, sources: int) -> I64:
    """(kinds, sources) what there is in the training split."""
    sizes = np.zeros((len(KINDS), sources), dtype=np.int64)
    for rows in ledger.blocks():
        train = rows[(ledger["reason"][rows] == 0) & (ledger["split"][rows] == TRAIN)]
        np.add.at(sizes, (ledger["kind"][train], ledger["source"][train]), ledger["characters"][train].astype(np.int64))
    return sizes


def _of_sources(sizes: I64, sources: Sequence[str]) -> dict[str, int]:
    """Of those that have some."""
    return {name: size for name, size in zip(sources, sizes.tolist(), strict=True) if size}


def _wanted(
    characters: Mapping[str, Mapping[str, int]], sizes: I64, weights: Mapping[str, float], params: PreprocessParams
) -> tuple[F64, F64]:
    """The share of each source and how often it is written, (kinds, sources) each.

    Args:
        characters: by kind, those of `sizes` that are above 0, in order; of other kinds, all is written as it is.
    """
    wanted, times = np.zeros(sizes.shape), np.ones(sizes.shape)
    for kind, own in characters.items():
        place, total = KINDS.index(kind), sum(own.values())
        codes = np.flatnonzero(sizes[place])
        share_of = shares(own, weights, params.temperature)
        wanted[place, codes] = list(share_of.values())
        times[place, codes] = [
            min(round(share_of[name] / size * total, _DIGITS), params.max_repeats) for name, size in own.items()
        ]
    return wanted, times


def _write_times(ledger: Ledger, times: F64, sizes: I64, seed: int) -> tuple[I64, I64]:
    """Have the training records of each kind and source repeated or dropped for its text to be written `times` times.

    All are written the whole part of it; the records whose draws are lowest once more (of equal draws, the first), as
    long as the text so written stays nearest to what is wanted. What is written once as it is is left alone.

    Args:
        times: (kinds, sources)
        sizes: (kinds, sources) characters.

    Returns:
        How many records there are, and the characters that are written of them; (kinds, sources) each. Of what is left
        alone, the records are not counted.
    """
    start = mix(np.full(1, seed, dtype=np.uint64))
    is_mixed = (times != 1) & (sizes > 0)
    records, written = np.zeros_like(sizes), sizes.copy()
    if not is_mixed.any():
        return records, written
    numbers = np.where(is_mixed, np.cumsum(is_mixed).reshape(is_mixed.shape) - 1, -1)
    whole = times[is_mixed].astype(np.int64)

    def parts() -> Iterator[tuple[I64, Part]]:
        for rows in ledger.blocks():
            rows = rows[(ledger["reason"][rows] == 0) & (ledger["split"][rows] == TRAIN)]
            own = numbers[ledger["kind"][rows], ledger["source"][rows]]
            rows, own = rows[own >= 0], own[own >= 0]
            yield rows, (own, mix(ledger["draw"][rows] ^ start), ledger["characters"][rows])

    lowest = Lowest(lambda: (part for _, part in parts()), (times[is_mixed] - whole) * sizes[is_mixed])
    found = np.zeros((2, len(whole)), dtype=np.int64)
    for rows, (own, draws, characters) in parts():
        counts = whole[own] + lowest.take(own, draws, characters)
        np.add.at(found[0], own, 1)
        np.add.at(found[1], own, characters.astype(np.int64) * counts)
        _repeat(ledger, rows, counts)
    records[is_mixed], written[is_mixed] = found
    return records, written


def _leave_out(ledger: Ledger, kind: int) -> None:
    """Drop all records of a kind."""
    for rows in ledger.blocks():
        _repeat(ledger, rows[(ledger["reason"][rows] == 0) & (ledger["kind"][rows] == kind)], 0)


def _repeat(ledger: Ledger, rows: I64, counts: np.ndarray[Any, Any] | int) -> None:
    """Have the records written so many times, and drop those that are written 0 times."""
    ledger["copies"][rows] = counts
    ledger.drop(rows[ledger["copies"][rows] == 0], MIXED_OUT)


_DIGITS = 9  # of how often a source is written: 1 must be 1, whatever division left behind


def shares(characters: Mapping[str, int], weights: Mapping[str, float], temperature: float) -> dict[str, float]:
    """The share p of each source.

    Args:
        characters: of each source.
        weights: of some sources; the others have 1. One source at least has text and a weight above 0.
    """
    most = math.frexp(max(weights.get(source, 1.0) for source in characters))[1]  # by a power of 2: no digit changes
    sizes = {source: size * math.ldexp(weights.get(source, 1.0), -most) for source, size in characters.items()}
    largest = max(sizes.values())
    wanted = {source: (size / largest) ** (1 / temperature) for source, size in sizes.items()}  # no power overflows
    total = sum(wanted.values())
    return {source: part / total for source, part in wanted.items()}
