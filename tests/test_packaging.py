"""What is built is what is in the checkout: as a source archive, a wheel, a zip on the path and an editable install."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import peertunnel
from tests.tools import PT, lack, need

ROOT = Path(__file__).parent.parent
QUIC = "peertunnel/transport/quic/__init__.py"  # beside it nothing loads without the engine
NO_TOOLS = "/nonexistent"  # a path without a Rust compiler
NOT_SOURCES = shutil.ignore_patterns(".*", "bin", "build", "dist", "target", "*.egg-info", "__pycache__")


def run(*command: str | Path, **env: str) -> str:
    outcome = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | env, timeout=170
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to build in, since builds leave folders behind."""
    copy = tmp_path_factory.mktemp("build") / "checkout"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_SOURCES)
    return copy


@pytest.fixture(scope="module")
def dist(checkout: Path) -> Path:
    """Holds the source archive and the wheel that was built from that archive alone, by no more than Python."""
    run(sys.executable, "-m", "build", "--no-isolation", checkout, PATH=NO_TOOLS)
    return checkout / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (built,) = dist.glob("peertunnel-*-py3-none-any.whl")
    return built


@pytest.fixture(scope="module")
def modules(checkout: Path) -> list[str]:
    found = checkout.glob("peertunnel/**/*.py")
    package = [str(p.relative_to(checkout)) for p in found if "engine" not in p.parts]
    return sorted(
        package + [f"peertunnel/{p.relative_to(checkout)}" for p in checkout.glob("protocols/**/*.py")]
    )


def install(environment: Path, *what: str | Path) -> Path:
    """Install into a new, empty environment and return its site-packages; setuptools is lent by this one."""
    venv.create(environment, with_pip=False)
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        environment,
        "install",
        "--no-deps",
        "--ignore-installed",
        "--no-build-isolation",
    ]
    run(*pip, *what, PYTHONPATH=sysconfig.get_path("purelib"))
    (site,) = environment.glob("lib/python3*/site-packages")
    return site


def test_wheel_has_every_module_and_nothing_else(wheel: Path, modules: list[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert files == {*modules, "peertunnel/py.typed", "peertunnel/transport/quic/_engine.pyi"}


def test_source_archive_has_both_folders_once(dist: Path) -> None:
    (archive,) = dist.glob("peertunnel-*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "setup.cfg", "protocols/errors.py"} <= names
    engine = {"Cargo.toml", "Cargo.lock", "backend.py", "src/core.rs", "src/lib.rs", "src/tls.rs"}
    assert {f"peertunnel/transport/quic/engine/{name}" for name in engine} <= names
    assert "peertunnel/protocols/errors.py" not in names


def test_wheel_adds_one_name_to_site_packages(wheel: Path, tmp_path: Path) -> None:
    site = install(tmp_path / "env", wheel)
    assert {p.name for p in site.iterdir() if p.suffix != ".dist-info"} == {"peertunnel"}
    assert (tmp_path / "env/bin/pt").exists()


def test_editable_install_leads_back_to_the_checkout(checkout: Path, tmp_path: Path) -> None:
    install(tmp_path / "env", "--editable", checkout)
    show = "import importlib.util as u, peertunnel.protocols.errors as e; print(e.__file__, u.find_spec('protocols'))"
    file, alone = run(tmp_path / "env/bin/python", "-P", "-c", show).split()
    assert Path(file).resolve() == checkout / "protocols/errors.py"
    assert alone == "None"


def test_every_module_can_be_imported_from_a_zip(wheel: Path, modules: list[str]) -> None:
    modules = [path for path in modules if path == QUIC or not path.startswith(QUIC.rpartition("/")[0])]
    names = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in modules]
    load = f"import importlib; print(*(importlib.import_module(n).__file__ for n in {names!r}), sep='\\n')"
    loaded = run(sys.executable, "-P", "-c", load, PYTHONPATH=str(wheel)).split()
    assert loaded == [f"{wheel}/{path}" for path in modules]


def test_what_tox_installed_is_what_is_tested() -> None:
    """Not the checkout, in which the tests lie and are run: neither here nor in the processes that they start."""
    if "TOX_ENV_NAME" not in os.environ:
        lack("tox does not run the tests")
    installed = str(Path(sysconfig.get_path("purelib"), "peertunnel", "__init__.py"))
    show = (PT[0], PT[1], "-c", "import peertunnel; print(peertunnel.__file__)")
    assert [peertunnel.__file__, run(*show).strip()] == [installed, installed]


WHY_NOT = "from peertunnel.transport.quic import why_not; print(why_not())"


def test_without_rust_the_wheel_is_for_every_machine_and_says_what_is_missing(
    checkout: Path, tmp_path: Path
) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, checkout, PATH=NO_TOOLS)
    (wheel,) = tmp_path.glob("peertunnel-*-py3-none-any.whl")
    said = run(sys.executable, "-P", "-c", WHY_NOT, PYTHONPATH=str(wheel))
    assert said.startswith("built without Rust; install Rust")


def test_with_rust_the_wheel_has_the_engine(checkout: Path, tmp_path: Path) -> None:
    """The engine is built as for a user, but where it was built before: it takes a minute from nothing."""
    need("cargo")
    target = ROOT / "peertunnel/transport/quic/engine/target"
    run(
        sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, checkout, CARGO_TARGET_DIR=str(target)
    )
    (wheel,) = tmp_path.glob("peertunnel-*-cp311-abi3-*.whl")
    site = install(tmp_path / "env", wheel)
    assert run(sys.executable, "-P", "-c", WHY_NOT, PYTHONPATH=str(site)) == "None\n"


def test_an_engine_that_cannot_be_built_stops_no_install(checkout: Path, tmp_path: Path) -> None:
    broken = tmp_path / "bin/cargo"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    path = f"{broken.parent}:{os.environ['PATH']}"
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, checkout, PATH=path)
    (wheel,) = tmp_path.glob("peertunnel-*.whl")
    said = run(sys.executable, "-P", "-c", WHY_NOT, PYTHONPATH=str(wheel))
    assert said.startswith("built without Rust")
