"""Docstrings for the reference pages: roles of Sphinx, which the code uses, as plain code."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|meth|func|mod|data|attr|const):`~?([^`]+)`")
BLOCK = re.compile(r"^\s*::\s*$", re.MULTILINE)
LEAD = re.compile(r"(?<=\w)::\s*$", re.MULTILINE)


class Roles(griffe.Extension):
    """Changes each docstring as it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Roles as code; of a ``::`` a colon is left, or nothing where it stands alone: blocks are indented anyway."""
        if obj.docstring is not None:
            obj.docstring.value = LEAD.sub(":", BLOCK.sub("", ROLE.sub(r"`\1`", obj.docstring.value)))
