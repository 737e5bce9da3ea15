"""Without the C functions of the wheels everything still works, and each reads what the other wrote."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

from tests.format.test_damaged_chunks import CHUNKS, contents

_WORK = """
import base64, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from uihkv import native
from tests.format.test_damaged_chunks import CHUNKS, contents
print(native.NATIVE, len(caught))
for schema, chunk, n in CHUNKS.values():
    contents(schema, chunk, n, 1)
    print(base64.b64encode(chunk).decode())
"""


def run(mode: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _WORK],
        env={**os.environ, "UIHKV_NATIVE": mode},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout.split()


def test_callbacks_read_and_write_the_same_format_and_warn_once() -> None:
    native, callbacks = run(""), run("callback")
    assert native[:2] == ["True", "0"]
    assert callbacks[:2] == ["False", "1"]
    for words in (native[2:], callbacks[2:]):
        for word, (schema, chunk, n) in zip(words, CHUNKS.values(), strict=True):
            assert contents(schema, base64.b64decode(word), n, 1) == contents(schema, chunk, n, 1)
