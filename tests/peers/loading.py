"""Imports a peer's package from its checkout, our functions in the place of those under test.

A peer's tests compare its functions with references that lie in the same modules. So those modules are the checkout's
own sources, run as they are, and only then the names that a shim provides are set to ours: what the tests import as the
reference, and every helper, stays the peer's. Two things are not asked for: the peer's compiled extensions, in whose
place stand modules that refuse to be called, and the `__init__` of packages that import all of the project, of which
only constants are taken.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.peers.shim import NotApplicableError, Peer, exposed


class _Replacing(SourceFileLoader):
    """The checkout's module, some of its names ours."""

    def __init__(self, name: str, path: str, ours: Mapping[str, Any]) -> None:
        super().__init__(name, path)
        self.ours = ours

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        vars(module).update(self.ours)


class _Bare(Loader):
    """A package that has of its `__init__` nothing but its constants, such as the version, which submodules import."""

    def __init__(self, source: Path) -> None:
        self.source = source

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        for statement in ast.parse(self.source.read_bytes()).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
                for name in statement.targets:
                    if isinstance(name, ast.Name):
                        setattr(module, name.id, statement.value.value)


class _Refusing(Loader):
    """A module whose functions are all there and refuse."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__

        def attribute(wanted: str) -> Callable[..., Any]:
            if wanted.startswith("__"):
                raise AttributeError(wanted)

            @exposed
            def refuse(*_: Any, **__: Any) -> Any:
                raise NotApplicableError(f"{name}.{wanted} (compiled code of the peer)")

            return refuse

        module.__getattr__ = attribute  # type: ignore[method-assign]


class Finder(MetaPathFinder):
    """Finds a peer's modules, none of which may be imported yet: `sys.meta_path.insert(0, Finder(...))`."""

    def __init__(self, peer: Peer, checkout: Path) -> None:
        assert peer.package not in sys.modules
        self.peer, self.checkout = peer, checkout

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self.peer.extensions:
            return ModuleSpec(fullname, _Refusing())
        if fullname.split(".")[0] != self.peer.package:
            return None
        spec = PathFinder.find_spec(fullname, [str(self.checkout)] if path is None else path)
        if spec is None or spec.origin is None:
            return spec
        if fullname in self.peer.bare:
            spec.loader = _Bare(Path(spec.origin))
        if fullname in self.peer.replaced:
            spec.loader = _Replacing(fullname, spec.origin, self.peer.replaced[fullname])
        return spec
