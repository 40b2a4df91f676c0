"""Room for a thousand sockets, for the tests and for what they start."""

import resource

import pytest


@pytest.fixture(scope="session", autouse=True)
def many_descriptors() -> None:
    """Lift the soft limit of open files, which is 1,024 on many systems, to the hard one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
