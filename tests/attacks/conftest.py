"""The Go peer, which knows no ids."""

from tests.interop.conftest import gopeer as gopeer
from tests.interop.conftest import pytest_collection_finish as pytest_collection_finish
