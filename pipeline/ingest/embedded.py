"""The embedded corpus: modules and docstrings of installed packages, after the recipe embedded/corpus.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path

from pipeline.chat.schemas import as_messages
from pipeline.ingest.docstrings import Limits, defines_something, extract_pairs, parse_module
from pipeline.ingest.pieces import Bounds, LeftOut, Outcome, Piece, Record

EMBEDDED = "embedded"
"""The name of this source."""


@dataclass(frozen=True)
class Recipe:
    """The packages (a distribution and the one package in it share the name) and what is taken from them."""

    packages: tuple[str, ...]
    leave_out: frozenset[str]
    limits: Limits


@dataclass(frozen=True)
class Module:
    """One module: a document, and a conversation for each function whose docstring makes a pair."""

    path: Path
    name: str
    size: int
    limits: Limits

    def read(self, bounds: Bounds) -> Iterator[Outcome]:
        """Read it."""
        source = self.path.read_bytes()
        tree = parse_module(source)
        if not defines_something(tree):
            yield LeftOut("module_without_definitions")
            return
        yield Record(f"{self.name}:module", EMBEDDED, self.name, None, source.decode("utf-8"))
        pairs, left_out = extract_pairs(source, tree, self.limits)
        for pair in pairs:
            messages = as_messages(pair.code, pair.summary)
            yield Record(f"{self.name}:{pair.line}", EMBEDDED, self.name, None, messages)
        yield from (LeftOut(reason) for reason in left_out.elements())


def embedded_pieces(recipe_file: Path, lock_file: Path) -> list[Piece]:
    """The modules of the recipe's packages.

    Raises:
        ValueError: the recipe is malformed, or a package is not installed in the version that the lock pins.
    """
    recipe = read_recipe(recipe_file)
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock_file.read_text(encoding="utf-8"), re.MULTILINE))
    return [
        Module(path, f"{package}/{name}", path.stat().st_size, recipe.limits)
        for package in recipe.packages
        for name, path in _modules(_package_directory(package, pins.get(package), lock_file), recipe.leave_out)
    ]


def read_recipe(path: Path) -> Recipe:
    """The recipe in `path`.

    Raises:
        ValueError: a field is missing or unknown.
    """
    import yaml  # takes a while, which worker processes do without

    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    limits = {field.name for field in fields(Limits)}
    wanted = {"packages", "leave_out"} | limits
    if not isinstance(found, dict) or set(found) != wanted:
        raise ValueError(f"{path} must have exactly the fields {', '.join(sorted(wanted))}")
    return Recipe(
        packages=tuple(found["packages"]),
        leave_out=frozenset(found["leave_out"]),
        limits=Limits(**{name: found[name] for name in limits}),
    )


def _package_directory(package: str, pin: str | None, lock_file: Path) -> Path:
    if pin is None:
        raise ValueError(f"the embedded corpus needs {package}, but {lock_file} does not pin it")
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        distribution = None
    if distribution is None or distribution.version != pin:
        installed = f"{distribution.version} is installed" if distribution else "it is not installed"
        raise ValueError(
            f"the embedded corpus needs {package} {pin}, as {lock_file} pins it, but {installed}: "
            f"run `pip install -r {lock_file}`"
        )
    return Path(str(distribution.locate_file(package)))


def _modules(root: Path, leave_out: frozenset[str]) -> Iterator[tuple[str, Path]]:
    names = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    for name in sorted(names):
        if leave_out.isdisjoint(name.split("/")):
            yield name, names[name]
