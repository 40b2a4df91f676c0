"""QUIC (/quic-v1): where the engine was built; everything else works without."""

from importlib import import_module


def is_available() -> bool:
    """Return whether this installation speaks QUIC."""
    return why_not() is None


def why_not() -> str | None:
    """Return why this installation doesn't speak QUIC; None if it does."""
    try:
        import_module("peertunnel.transport.quic._engine")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            return "built without Rust: install Rust 1.85 or later, and peertunnel again from its sources"
        return f"the engine does not load: {error}"
    return None
