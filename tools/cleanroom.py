"""Does what is published work where nothing of this repository is? ``python -m tools.cleanroom [--python PYTHON]``.

A source distribution is built, the wheel from it, and each is installed with its dependencies into a new virtual
environment, by the interpreter that is asked for. There, in an empty folder and without this repository on any path,
both packages must come from the environment and ``uihkv demo --quick`` must end well. Needs the package index, and a
few minutes. The exit status is 1 when something of it fails, and what failed has said why.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHERE = "import loader, sys, uihkv; assert all(m.__file__.startswith(sys.prefix) for m in (uihkv, loader)), sys.path"


def build(into: Path) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built of it unpacked."""
    _run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(into)], ROOT)
    (sdist,) = into.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(into / "tree", filter="data")
    (tree,) = (into / "tree").iterdir()
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)], tree)
    (wheel,) = into.glob("*.whl")
    return sdist, wheel


def try_out(package: Path, folder: Path, python: str | None) -> None:
    """Install into a new environment, and run the demo there."""
    home, away = folder / "venv", folder / "away"
    away.mkdir(parents=True)
    if python is None:
        venv.create(home, with_pip=True)
    else:
        _run([python, "-m", "venv", str(home)], away)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(package)], away)
    _run([str(home / "bin" / "python"), "-c", WHERE], away)
    _run([str(home / "bin" / "uihkv"), "demo", "--quick"], away)


def _run(command: list[str], folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(command, cwd=folder, env=environment, check=True)


def main() -> int:
    """Build, and try both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="interpreter of the new environments; without it, this one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        try:
            for package in build(folder):
                print(f"{package.name}: a new environment", flush=True)
                try_out(package, folder / package.suffix[1:], asked.python)
                print(f"{package.name}: installed, and the demo ran", flush=True)
        except subprocess.CalledProcessError as error:
            print(f"failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
