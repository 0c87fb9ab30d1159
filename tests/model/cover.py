"""Sets of cases that cover many axes with few."""

import itertools
import random
from typing import Any


def pairwise(axes: dict[str, list]) -> list[dict[str, Any]]:
    """Combinations in which each pair of values of two axes occurs, found greedily and always the same."""
    draw, names = random.Random(0), list(axes)
    missing = {
        (a, x, b, y)
        for a, b in itertools.combinations(names, 2)
        for x in range(len(axes[a]))
        for y in range(len(axes[b]))
    }
    found = []
    while missing:
        candidates = []
        for _ in range(60):
            a, x, b, y = min(missing)
            picks = {name: draw.randrange(len(axes[name])) for name in names} | {a: x, b: y}
            covered = {(a, picks[a], b, picks[b]) for a, b in itertools.combinations(names, 2)} & missing
            candidates.append((len(covered), sorted(picks.items()), covered))
        _, best, covered = max(candidates)
        missing -= covered
        found.append({name: axes[name][place] for name, place in best})
    return found


def every(axes: dict[str, list]) -> list[dict[str, Any]]:
    """All combinations."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def label(case: dict[str, Any]) -> str:
    """A case's name in pytest's output."""
    return "-".join(str(value).removeprefix("torch.") for value in case.values())
