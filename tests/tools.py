"""`pt`, and programs that tests need beside it: without one its tests are skipped, and loudly; in CI they fail."""

import os
import shutil
import subprocess
import sys
from typing import NoReturn

import pytest

from peertunnel.transport import quic

PT = (sys.executable, "-P", "-m", "peertunnel")  # -P: the one that is installed, not the folder we stand in
SYSTEM_FOLDERS = "/usr/sbin:/sbin"  # where servers lie that no user has on the path


def need(tool: str, *folders: str) -> str:
    """Give the path of a program, looked for on PATH, in the folders of servers, then in `folders`."""
    path = os.pathsep.join((os.environ.get("PATH", ""), SYSTEM_FOLDERS, *folders))
    if found := shutil.which(tool, path=path):
        return found
    lack(f"{tool} is not installed")


def need_quic() -> None:
    """Make sure that peertunnel was built with its QUIC engine."""
    if (reason := quic.why_not()) is not None:
        lack(f"no QUIC: {reason}")


def need_namespaces() -> None:
    """Make sure that a user without rights gets network namespaces: some systems refuse them."""
    done = subprocess.run(
        [need("unshare"), "--user", "--net", "true"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lack(f"no namespaces for users: {done.stderr.strip()}")


def lack(reason: str) -> NoReturn:
    """Skip the test or the module that runs, or fail it where CI=true promises that everything is there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)
