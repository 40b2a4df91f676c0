"""`pt` is no slower than it was: the quick benchmark keeps within its margins."""

import pytest

from tests.bench.run import main
from tests.bench.subjects import built
from tests.interop.build import GO
from tests.tools import lack


@pytest.mark.alone
@pytest.mark.timeout(600)  # the Go peer may have to be built first
def test_pt_keeps_ahead_of_the_go_peer() -> None:
    """Throughput, processor time and echo are within generous margins of the Go peer's, in one run."""
    if reason := built(GO):
        lack(reason)
    assert main(["--quick"]) == 0
