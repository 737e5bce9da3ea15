"""The package as others get it: a source distribution, the wheel that is built from it, and what the wheel holds."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import uihkv

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def build(tree: Path, target: str, into: Path) -> Path:
    """Build with hatchling as a front end would, but in this environment: no network."""
    before = set(into.iterdir())
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = set(into.iterdir()) - before
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from the unpacked source distribution, so that nothing is missing there."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "tree", filter="data")
    (tree,) = (folder / "tree").iterdir()
    (folder / "made").mkdir()
    return zipfile.ZipFile(build(tree, "wheel", folder / "made"))


def test_the_wheel_holds_both_packages_their_types_and_the_demo_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    tracked = {
        path.relative_to(ROOT).as_posix()
        for package in ("uihkv", "loader")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix in (".py", ".typed", ".parquet", ".md")
    }
    assert {name for name in names if ".dist-info/" not in name} == tracked
    assert {"uihkv/py.typed", "loader/py.typed"} <= tracked
    assert any(name.startswith("loader/demo/data/") and name.endswith(".parquet") for name in names)
    assert sum(info.file_size for info in wheel.infolist()) < 10 << 20


def test_its_metadata_say_what_it_needs_and_its_entry_points_exist(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    (metadata_name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(metadata_name).decode())
    assert metadata["Name"] == "uihkv"
    assert metadata["Version"] == uihkv.__version__ == PROJECT["version"]
    assert metadata["Requires-Python"] == ">=3.11"
    pythons = re.findall(r"Python :: (3\.\d+)", "\n".join(metadata.get_all("Classifier", [])))
    assert pythons == ["3.11", "3.12", "3.13"]
    extras = {"bench", "docs", "kafka", "lightning", "ray", "torchdata", "torchrec"}
    assert extras <= set(metadata.get_all("Provides-Extra", []))
    assert "versioned late materialization" in metadata.get_payload()

    wheel.extractall(tmp_path)
    script = """
import sys
from importlib.metadata import distributions
(found,) = [d for d in distributions(path=[sys.argv[1]]) if d.name == "uihkv"]
entries = {entry.name: entry for entry in found.entry_points}
assert set(entries) == {"uihkv", "bench", "demo"}, entries
for entry in entries.values():
    entry.load()
import loader, uihkv
assert uihkv.__file__.startswith(sys.argv[1]) and loader.__file__.startswith(sys.argv[1])
sys.argv = ["uihkv", "--version"]
entries["uihkv"].load()()
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"uihkv {uihkv.__version__}\n"), done.stderr


def test_the_source_distribution_holds_what_its_own_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ["Makefile", "constraints.txt", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE"]
    assert set(wanted) <= names
    assert {"tests/model.py", "perf/__main__.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".nbi", ".nbc", ".pyc"))]
