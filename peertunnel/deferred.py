"""Modules that are executed when something of them is used: most of what the library imports is never used here.

Importing any module of libp2p runs the `__init__` of the packages above it, which import every transport and every
service there is: 20 MiB and half a second for nothing. The packages themselves are needed only as places to look in.
So they, and some modules that libraries import whole and use in what we don't do, are set up empty;
the first name that is looked up in one and isn't there has it executed, as if it had been imported just then.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_PACKAGES = "libp2p"  # it and all packages in it
_MODULES = frozenset({"dns.asyncresolver", "dns.resolver", "httpx"})
_LOADER = "__deferred_loader__"


def install() -> None:
    """Defer these modules from now on; those that are imported already stay as they are."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds modules as usual, and puts the loader of a deferred one off."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        is_named = name in _MODULES
        if not is_named and name.partition(".")[0] != _PACKAGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None and (is_named or spec.submodule_search_locations):
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]  # it has what importing asks of one
        return spec


class _Loader:
    """Makes a module without executing it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__[_LOADER] = self._loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # what inspect and importlib.resources ask of a loader


class _Module(ModuleType):
    """A module that is executed for the first name that isn't there."""

    def __getattr__(self, name: str) -> Any:
        loader = self.__dict__.pop(_LOADER, None)
        if loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        loader.exec_module(self)
        return getattr(self, name)
