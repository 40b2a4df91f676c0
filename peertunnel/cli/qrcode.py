"""A link as a QR code on the terminal, for the machine that has a camera."""

import sys
from collections.abc import Callable

from peertunnel.errors import UsageError


def drawer() -> Callable[[str], None]:
    """Give a function that draws a text on stderr; raises UsageError when segno is not installed."""
    try:
        import segno
    except ImportError:
        raise UsageError("QR codes need segno.", hint="Run pip install 'peertunnel[qr]'.") from None

    def draw(text: str) -> None:
        segno.make(text, error="l", micro=False).terminal(sys.stderr, compact=True)

    return draw
