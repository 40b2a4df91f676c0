"""What the system lets us have: as many open files as it ever will, since every tunnel takes one or two."""

import resource


def raise_open_files() -> None:
    """Raise the limit of open files to the most that we may have without being root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS calls it unlimited and has a limit all the same
            pass
