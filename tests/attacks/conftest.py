"""The Go peer, which knows no ids."""

from tests.interop.conftest import gopeer, pytest_collection_finish

__all__ = ["gopeer", "pytest_collection_finish"]
