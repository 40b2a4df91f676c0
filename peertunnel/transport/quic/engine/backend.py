"""The build backend: setuptools', which also builds the QUIC engine where there is a Rust compiler.

Without one, neither the compiler nor what calls it is asked for, and the wheel is one for every machine. If the engine
can't be built, the wheel is made without it all the same.
"""

import shutil
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from setuptools.command.egg_info import manifest_maker

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

# What belongs into the source archive beside the modules; setuptools would look for it at the top.
manifest_maker.template = "peertunnel/transport/quic/engine/MANIFEST.in"


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return what a wheel is built with, beyond what pyproject.toml names."""
    return _and_rust(build_meta.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Return what an editable install is made with, beyond what pyproject.toml names."""
    return _and_rust(build_meta.get_requires_for_build_editable(config_settings))


def _and_rust(requirements: list[str]) -> list[str]:
    return [*requirements, "setuptools-rust>=1.13"] if shutil.which("cargo") else requirements
