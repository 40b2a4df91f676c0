"""docs/performance.md, which several measurements share: each writes its own part and leaves the others' as they are."""

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/performance.md"
PLOT = PAGE.with_suffix(".svg")
PARTS = (  # headings of parts that have an owner
    "## Through a relay",
    "## From start to the first byte",
    "## Under load for long",
)


def put(heading: str, text: str, path: Path = PAGE) -> None:
    """Write one part anew, with its heading; it goes to the end if it is not there yet."""
    before, _, rest = path.read_text().partition(heading)
    following = [rest[at:] for part in PARTS if (at := rest.find(part)) >= 0]
    after = max(following, key=len, default="")
    path.write_text("\n\n".join(filter(None, (before.rstrip(), text.rstrip(), after.rstrip()))) + "\n")


def kept(text: str) -> str:
    """Give the parts of a page that have an owner, with a blank line before them; nothing if there are none."""
    first = min((at for part in PARTS if (at := text.find(part)) >= 0), default=len(text))
    return f"\n{text[first:]}" if text[first:] else ""
