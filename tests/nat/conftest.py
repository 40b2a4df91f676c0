"""The Go and the Rust peer, which punch holes, too."""

from tests.interop.conftest import gopeer, pytest_collection_finish, rspeer

__all__ = ["gopeer", "pytest_collection_finish", "rspeer"]
