"""What does an installation consist of, under which licences, and is any of it known to be unsafe?

``python -m tools.supply licences`` lists the packages that ``uihkv`` needs, those that they need, and so on, as they
are installed here; the exit status is 1 when one names no licence, or one that asks more of users than notice and
attribution. ``python -m tools.supply audit`` asks ``pip-audit`` about the versions in ``constraints.txt``; the exit
status is 1 when one has a known vulnerability. Where ``pip-audit`` is not installed, or its data cannot be reached, it
says so, and that is no failure.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
AUDIT_S = 60
PERMISSIVE = re.compile(
    r"\b(apache|mit|bsd|isc|psf|python software foundation|zlib|unlicense|0bsd|cc0|hpnd|mpl|mozilla public)", re.I
)
"""Licences that ask for notice and attribution, or (MPL) for changes of their own files."""
COPYLEFT = re.compile(r"\b(a?gpl|lgpl|sspl|busl|gnu)", re.I)
PROPRIETARY = re.compile(r"^(nvidia|cuda)-")
"""Packages that torch brings for CUDA, under NVIDIA's own terms, on machines that ask for them."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package that is installed: its licence as its metadata say it; empty: they do not."""

    name: str
    version: str
    licence: str

    @property
    def is_free_to_use(self) -> bool:
        """Whether its licence asks for no more than notice and attribution."""
        if PROPRIETARY.match(self.name):
            return True
        return bool(PERMISSIVE.search(self.licence)) or (bool(self.licence) and not COPYLEFT.search(self.licence))


def needed(root: str) -> list[Package]:
    """A package and all that it needs here, by name."""
    found: dict[str, Package] = {}
    left = [root]
    while left:
        name = _plain(left.pop())
        if name in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # a marker that does not hold was not told as one
        found[name] = Package(name, distribution.version, licence_of(distribution.metadata))
        for line in distribution.requires or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                left.append(wanted.name)
    return [found[name] for name in sorted(found)]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(about: Any) -> str:
    """The licence that metadata name: an expression, classifiers, or the first line of a text."""
    if about.get("License-Expression"):
        return str(about["License-Expression"])
    classified = [line.split(" :: ")[-1] for line in about.get_all("Classifier", []) if line.startswith("License ::")]
    told = [line for line in classified if line != "OSI Approved"]
    if told:
        return ", ".join(told)
    return (about.get("License") or "").strip().splitlines()[0][:60] if (about.get("License") or "").strip() else ""


def list_licences() -> int:
    """Print every package and its licence."""
    packages = needed("uihkv")
    width = max(len(package.name) for package in packages)
    for package in packages:
        mark = "" if package.is_free_to_use else "  <- look at this one"
        print(f"{package.name:{width}}  {package.version:12}  {package.licence or 'not named'}{mark}")
    bad = [package.name for package in packages if not package.is_free_to_use]
    print(f"{len(packages)} packages" + (f"; not free to use, or not named: {', '.join(bad)}" if bad else ""))
    return 1 if bad else 0


def audit() -> int:
    """Print what is known against the pinned versions."""
    if importlib.util.find_spec("pip_audit") is None:
        print("audit skipped: pip-audit is not installed (pip install pip-audit)")
        return 0
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt"), "--no-deps", "--disable-pip",
        "--format", "json", "--progress-spinner", "off",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_S, check=False)
        told = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"audit skipped: no answer within {AUDIT_S} s")
        return 0
    except (ValueError, KeyError):
        print(f"audit skipped: its data cannot be reached ({(done.stderr.strip().splitlines() or ['no answer'])[-1]})")
        return 0
    return judge(told)


def judge(told: Sequence[dict[str, Any]]) -> int:
    """Print what an audit says of each package; 1: one is known to be unsafe."""
    asked = [package for package in told if "skip_reason" not in package]
    if not asked:
        print("audit skipped: the index that is used here knows of no vulnerabilities, it has no data on any package")
        return 0
    bad = [(package, flaw) for package in asked for flaw in package.get("vulns", ())]
    for package, flaw in bad:
        fixed = ", ".join(flaw.get("fix_versions", ())) or "no version"
        print(f"{package['name']} {package['version']}: {flaw['id']}, fixed in {fixed}")
    print(f"{len(asked)} of {len(told)} packages audited, {len(bad)} known vulnerabilities")
    return 1 if bad else 0


if __name__ == "__main__":
    chosen = {"licences": list_licences, "audit": audit}.get(sys.argv[1] if len(sys.argv) == 2 else "")
    sys.exit("python -m tools.supply licences|audit" if chosen is None else chosen())
