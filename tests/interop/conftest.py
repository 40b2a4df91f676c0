"""The foreign peers, built before the first test so that no test's time limit counts the compiler."""

import shutil
from pathlib import Path

import pytest

from tests.interop.build import GO, JS, RECIPES, RUST, Recipe
from tests.tools import need


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the peers that the collected tests ask for, where their toolchains are."""
    asked = {
        name for item in session.items if isinstance(item, pytest.Function) for name in item.fixturenames
    }
    stale = [
        recipe
        for recipe in RECIPES
        if recipe.name in asked and shutil.which(recipe.tool) and not recipe.is_fresh()
    ]
    if not stale or session.config.option.collectonly:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        for recipe in stale:
            print(f"\nbuilding {recipe.name}", flush=True)
            recipe.build()


def _built(recipe: Recipe) -> Path:
    if not recipe.is_fresh():
        need(recipe.tool)
    return recipe.binary


@pytest.fixture(scope="session")
def gopeer() -> Path:
    """The go-libp2p peer."""
    return _built(GO)


@pytest.fixture(scope="session")
def rspeer() -> Path:
    """The rust-libp2p peer."""
    return _built(RUST)


@pytest.fixture(scope="session")
def jspeer() -> Path:
    """The js-libp2p peer."""
    return _built(JS)
