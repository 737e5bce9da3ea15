"""Pages that are made from the code are as the code is now, and every command teaches by an example."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from docs import sessions
from docs.generate import PAGE, build_page, command_help, list_commands
from docs.hooks import NAMES, WANTED, docstring_as_markdown, list_names
from uihkv.cli import BUILT_IN, app

ROOT = Path(__file__).parents[2]
COMMANDS = list_commands()


def test_the_command_line_page_is_what_the_help_says() -> None:
    assert PAGE.read_text() == build_page(), "run: python -m docs.generate"


def test_the_page_of_sessions_is_what_the_commands_print(tmp_path: Path) -> None:
    page, made = sessions.PAGE.read_text(), sessions.build_page(tmp_path)
    assert sessions.same_form(page) == sessions.same_form(made), "run: python -m docs.generate"
    assert {session.command for session in sessions.SESSIONS} == set(COMMANDS)
    assert "DIFFERENT" not in page and "Traceback" not in page
    blocks = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    printed = [line for block in blocks for line in block.splitlines() if not line.startswith(("$", "{"))]
    assert all(len(line) <= 80 for line in printed)
    assert sessions.same_form("size 1.25 MB\n3 users") == sessions.same_form("size  2.5 MB\n3 users")
    assert sessions.same_form("size 1.25 MB\n3 users") != sessions.same_form("size 1.25 MB\n4 users")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_parses(name: str) -> None:
    command = COMMANDS[name]
    text = command_help(command)
    assert all(len(line) <= 76 for line in text.splitlines()), "lines fit 80 columns with the help's frame"
    _, found, behind = text.partition("\nExample")
    assert found, f"uihkv {name} --help has no example"
    examples = re.findall(r"uihkv .*", behind)
    assert examples
    for example in examples:
        line = re.split(r"\s{3,}", example)[0]
        words = shlex.split(line, comments=True)
        assert words[:2] == ["uihkv", name]
        command.make_context(name, words[2:])  # fails for what does not parse


@pytest.mark.parametrize("name", BUILT_IN)
def test_help_fits_80_columns(name: str) -> None:
    told = CliRunner().invoke(app, [name, "--help"])
    assert told.exit_code == 0
    assert all(len(line) <= 80 for line in told.output.splitlines())
    assert "--json" in told.output and "<bool>" not in told.output  # flags are shown by their names alone


def test_the_format_page_has_the_tables_of_the_code() -> None:
    asked = WANTED.findall((ROOT / "docs" / "format.md").read_text())
    assert "uihkv.chunk" in asked
    page = docstring_as_markdown("uihkv.chunk")
    assert "| offset | bytes | field |" in page
    assert re.search(r"^\| 4 \| 1 \| form: ``0xC0``", page, re.MULTILINE)
    assert "====" not in page and ":mod:" not in page
    assert re.search(r"^\| delta \|.*step.*x\[i\].* \|$", page, re.MULTILINE), "a row of two lines is one row"
    assert re.search(r"^\| then \|  \| the bases .* \|$", page, re.MULTILINE)
    for module in asked:
        assert len(docstring_as_markdown(module)) > 200


def test_the_reference_has_every_public_name_where_it_is_defined() -> None:
    import loader
    import uihkv

    for package, page in ((uihkv, "store"), (loader, "loader")):
        text = (ROOT / "docs" / "reference" / f"{page}.md").read_text()
        made = NAMES.sub(lambda found, text=text: list_names(found[2], found[1] == "errors", text), text)
        named = re.findall(r"^::: (\S+)$", made, re.MULTILINE)
        assert len(set(named)) == len(named)
        for name in package.__all__:
            (place,) = [place for place in named if place.rpartition(".")[2] == name]
            assert getattr(import_module(place.rpartition(".")[0]), name) is getattr(package, name)


def test_every_link_and_picture_of_the_pages_is_there() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "examples" / "README.md"]
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not target.startswith("http") and target != "walkthrough.md":
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_walk_through_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / "docs" / "walkthrough.py"
    text = script.read_text()
    ast.parse(text)
    assert text.count("\n# %%") >= 8
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")
