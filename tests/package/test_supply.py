"""What is installed is free to use, and an audit fails for what is known to be unsafe and for nothing else."""

from __future__ import annotations

import pytest

from tools.supply import Package, judge, needed


def test_every_package_that_is_needed_is_free_to_use() -> None:
    packages = needed("uihkv")
    names = {package.name for package in packages}
    assert {"uihkv", "lmdb", "numpy", "torch", "msgpack", "llvmlite"} <= names  # also what others need
    assert [package.name for package in packages if not package.is_free_to_use] == []


@pytest.mark.parametrize(
    ("licence", "free"), [("MIT", True), ("", False), ("AGPL-3.0-only", False), ("OLDAP-2.8", True)]
)
def test_a_licence_that_asks_for_more_or_none_stands_out(licence: str, free: bool) -> None:
    assert Package("some", "1.0", licence).is_free_to_use is free


def test_an_audit_fails_for_what_is_known_to_be_unsafe_alone(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = {"name": "numpy", "version": "2.0", "skip_reason": "not found"}
    sound = {"name": "lz4", "version": "4.0", "vulns": []}
    unsafe = {"name": "old", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
    assert judge([unknown]) == 0
    assert "audit skipped" in capsys.readouterr().out
    assert judge([unknown, sound]) == 0
    assert judge([unknown, sound, unsafe]) == 1
    assert "old 1.0: PYSEC-1, fixed in 1.1" in capsys.readouterr().out
