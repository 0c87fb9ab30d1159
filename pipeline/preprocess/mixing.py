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

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.preprocess.components import I64
from pipeline.preprocess.hashes import mix
from pipeline.preprocess.ledger import TRAIN, Ledger
from pipeline.preprocess.lowest import Lowest
from pipeline.shards.tables import KINDS
from pipeline.splitmix import U64

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
    for name in params.weights:
        if name not in sources:
            raise ValueError(f"preprocess.weights.{name}: there is no such source; there are {', '.join(sources)}")
    weights = {**weights, **params.weights}
    sizes = _training_characters(ledger, sources)
    weighty = {kind for kind, own in sizes.items() if any(weights.get(name, 1.0) for name in own)}
    if not weighty and (names := sorted({name for own in sizes.values() for name in own})):
        raise ValueError(
            f"preprocess.weights (or sources.yaml): nothing is left to train on: {', '.join(names)} weigh 0"
        )
    mixtures = []
    for place, kind in enumerate(KINDS):
        if kind in weighty:
            mixtures += _mix_kind(ledger, place, sources, sizes[kind], weights, params)
        elif sizes[kind]:
            for rows in ledger.blocks():
                _repeat(ledger, rows[(ledger["reason"][rows] == 0) & (ledger["kind"][rows] == place)], 0)
            mixtures += [Mixture(kind, name, size, 0.0, 0) for name, size in sizes[kind].items()]
    return mixtures


def _training_characters(ledger: Ledger, sources: Sequence[str]) -> dict[str, dict[str, int]]:
    """By kind, the characters of the sources that have some in the training split."""
    sizes = np.zeros((len(KINDS), len(sources)), dtype=np.int64)
    for rows in ledger.blocks():
        train = rows[(ledger["reason"][rows] == 0) & (ledger["split"][rows] == TRAIN)]
        np.add.at(sizes, (ledger["kind"][train], ledger["source"][train]), ledger["characters"][train].astype(np.int64))
    return {
        kind: {name: size for name, size in zip(sources, own, strict=True) if size}
        for kind, own in zip(KINDS, sizes.tolist(), strict=True)
    }


def _mix_kind(
    ledger: Ledger,
    place: int,
    sources: Sequence[str],
    sizes: Mapping[str, int],
    weights: Mapping[str, float],
    params: PreprocessParams,
) -> list[Mixture]:
    """Mix the sources of the kind at `place` of KINDS. What is written once as it is takes no memory."""
    wanted, total = shares(sizes, weights, params.temperature), sum(sizes.values())
    mixtures = []
    for name, size in sizes.items():
        times, written = min(round(wanted[name] / size * total, _DIGITS), params.max_repeats), size
        if times != 1:
            own = partial(_training_rows, ledger, place, sources.index(name))
            records, written = _write_times(ledger, own, times, size, params.seed)
            if wanted[name] and not written:
                print(
                    f"warning: preprocess.weights: nothing of source {name} ({KINDS[place]}) is left to train on: "
                    f"{times:.2g} of its {size:,} characters are nearer to none than to the first drawn of its records "
                    f"({records:,}); raise its weight to keep some, or set it to 0 to leave it out",
                    file=sys.stderr,
                )
        mixtures.append(Mixture(KINDS[place], name, size, wanted[name], written))
    return mixtures


def _training_rows(ledger: Ledger, kind: int, source: int) -> Iterator[I64]:
    """The training records of a source that stay, a block at a time."""
    for rows in ledger.blocks():
        is_own = (ledger["kind"][rows] == kind) & (ledger["source"][rows] == source)
        yield rows[is_own & (ledger["reason"][rows] == 0) & (ledger["split"][rows] == TRAIN)]


def _write_times(
    ledger: Ledger, own: Callable[[], Iterable[I64]], times: float, size: int, seed: int
) -> tuple[int, int]:
    """Have the records of a source, of `size` characters, repeated or dropped for its text to be written `times` times.

    All are written the whole part of it; the records whose draws are lowest once more, as long as the text so written
    stays nearest to what is wanted.

    Args:
        own: the records, a block at a time; equal draws go by their order.

    Returns:
        How many records there are, and the characters that are written of them.
    """
    start = mix(np.full(1, seed, dtype=np.uint64))

    def draws() -> Iterator[tuple[U64, np.ndarray[Any, Any]]]:
        return ((mix(ledger["draw"][rows] ^ start), ledger["characters"][rows]) for rows in own())

    whole = int(times)
    lowest = Lowest(draws, (times - whole) * size)
    records = written = 0
    for rows in own():
        characters = ledger["characters"][rows]
        counts = whole + lowest.take(mix(ledger["draw"][rows] ^ start), characters).astype(np.uint16)
        records, written = records + len(rows), written + int((characters * counts).sum())
        _repeat(ledger, rows, counts)
    return records, written


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
    sizes = {source: size * weights.get(source, 1.0) for source, size in characters.items()}
    largest = max(sizes.values())
    wanted = {source: (size / largest) ** (1 / temperature) for source, size in sizes.items()}  # no power overflows
    total = sum(wanted.values())
    return {source: part / total for source, part in wanted.items()}
