"""Build the Go, the Rust and the JavaScript peer into tests/interop/bin when their sources are newer.

`python tests/interop/build.py [gopeer] [rspeer] [jspeer]` builds all of them or those that are named.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BIN = HERE / "bin"
BUILT = {"target", "node_modules"}  # folders of what is not source


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a peer is made: the tool that must be there, the command in its folder, and what comes out."""

    name: str
    tool: str
    folder: Path
    command: tuple[str, ...]
    product: Path

    @property
    def binary(self) -> Path:
        """Where the built peer lies."""
        return BIN / self.name

    def is_fresh(self) -> bool:
        """Tell whether the binary is younger than every source."""
        sources = [path for path in self.folder.rglob("*") if path.is_file() and not BUILT & {*path.parts}]
        return self.binary.exists() and self.binary.stat().st_mtime > max(
            path.stat().st_mtime for path in sources
        )

    def build(self) -> None:
        """Build the binary; raises CalledProcessError when that fails, FileNotFoundError without the tool."""
        BIN.mkdir(exist_ok=True)
        subprocess.run(self.command, cwd=self.folder, check=True)
        # A peer that still runs keeps the file that it was started from.
        new = self.binary.with_suffix(".new")
        shutil.copy2(self.product, new)
        new.touch()
        new.replace(self.binary)


GO = Recipe(
    name="gopeer",
    tool="go",
    folder=HERE / "go",
    command=("go", "build", "-o", str(BIN / "gopeer.built"), "."),
    product=BIN / "gopeer.built",
)
RUST = Recipe(
    name="rspeer",
    tool="cargo",
    folder=HERE / "rust",
    command=("cargo", "build", "--release", "--locked", "--target-dir", str(HERE / "rust/target")),
    product=HERE / "rust/target/release/rspeer",
)
JS = Recipe(
    name="jspeer",
    tool="npm",
    folder=HERE / "js",
    command=("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"),
    product=HERE / "js/jspeer",
)
RECIPES = (GO, RUST, JS)


def main(names: list[str]) -> None:
    """Build what is named, or everything."""
    for recipe in RECIPES:
        if (not names or recipe.name in names) and not recipe.is_fresh():
            print(f"building {recipe.name}", flush=True)
            recipe.build()


if __name__ == "__main__":
    main(sys.argv[1:])
