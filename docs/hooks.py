"""What mkdocs makes of the sources when it builds the pages: texts that stand in the code are not copied by hand.

- A line ``<!-- docstring: MODULE -->`` of a page becomes that module's docstring, its tables as Markdown.
- A line ``<!-- names: PACKAGE -->`` becomes the reference of the public names that the page does not name itself,
  ``<!-- errors: PACKAGE -->`` that of the errors and warnings.
- ``walkthrough.py``, a jupytext percent script, becomes the page ``walkthrough.md``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WANTED = re.compile(r"^<!-- docstring: ([\w.]+) -->$", re.MULTILINE)
NAMES = re.compile(r"^<!-- (names|errors): (\w+) -->$", re.MULTILINE)
ROLE = re.compile(r":(?:class|meth|func|mod|data|attr|const):`~?([^`]+)`")
RULE = re.compile(r"^=+( +=+)+$")


def on_files(files: Any, config: Any) -> Any:
    """Add the walk-through."""
    import jupytext
    from mkdocs.structure.files import File

    notebook = jupytext.read(ROOT / "docs" / "walkthrough.py")
    notebook.metadata = {}
    text = re.sub(r"\A---\n.*?\n---\n", "", jupytext.writes(notebook, "md"), flags=re.DOTALL)
    files.append(File.generated(config, "walkthrough.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put docstrings and names where a page asks for them."""
    markdown = NAMES.sub(lambda found: list_names(found[2], found[1] == "errors", markdown), markdown)
    return WANTED.sub(lambda found: docstring_as_markdown(found[1]), markdown)


def list_names(package: str, errors: bool, page: str) -> str:
    """References to the public names of a package that a page lacks, found without importing it."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    homes = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{package}.")
        for alias in node.names
    }
    (public,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    wanted = [name for name in public if name.endswith(("Error", "Warning")) == errors]
    entries = [f"::: {homes[name]}.{name}" for name in wanted]
    return "\n\n".join(entry for entry in entries if not re.search(rf"^{re.escape(entry)}$", page, re.MULTILINE))


def docstring_as_markdown(module: str) -> str:
    """The docstring of a module, found without importing it; its first line as a sentence of its own."""
    path = ROOT / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text()))
    if text is None:
        raise LookupError(f"{module} has no docstring")
    return tables_as_markdown(roles_as_code(text))


def roles_as_code(text: str) -> str:
    """``:class:`Store``` as code; code in double backticks stays as it is."""
    return ROLE.sub(r"`\1`", text)


def tables_as_markdown(text: str) -> str:
    """Simple tables of reStructuredText as Markdown's: a rule, maybe a head and a rule, rows, a rule."""
    lines, made, at = text.splitlines(), [], 0
    while at < len(lines):
        if not RULE.match(lines[at]):
            made.append(lines[at])
            at += 1
            continue
        starts = [found.start() for found in re.finditer(r"=+", lines[at])]
        parts: list[list[str]] = [[]]
        at += 1
        while at < len(lines) and lines[at].strip():
            if RULE.match(lines[at]):
                parts.append([])
            else:
                parts[-1].append(lines[at])
            at += 1
        groups = [part for part in parts if part]
        head = _cells(groups[0], starts)[0] if len(groups) == 2 else [""] * len(starts)
        made.append(_row(head))
        made.append(_row(["---"] * len(starts)))
        made += map(_row, _cells(groups[-1], starts))
    return "\n".join(made)


def _cells(lines: list[str], starts: list[int]) -> list[list[str]]:
    """Rows of a table; a line with nothing but a last cell goes on with the row above it."""
    rows: list[list[str]] = []
    bounds = [*zip(starts, [start - 1 for start in starts[1:]], strict=False), (starts[-1], None)]
    for line in lines:
        cells = [line[low:high].strip() for low, high in bounds]
        if rows and not any(cells[:-1]):
            rows[-1] = [" ".join(filter(None, pair)) for pair in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    return rows


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
