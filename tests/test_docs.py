"""README and docs/ say what is there: links, paths, commands, imports and the lines of the files to read."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_architecture import LAYERS

from mobiledet.cli.common import Parser
from mobiledet.cli.main import COMMANDS
from mobiledet.utils.recipes import recipes

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(CHECKOUT)): page.read_text(encoding="utf-8") for page in PAGES}
CODE = [(name, block) for name, text in TEXTS.items() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    page = CHECKOUT / name
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", TEXTS[name])
    for target, anchor in links:
        file = (page.parent / target) if target else page
        assert file.exists(), f"{name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{name}: {target}#{anchor}"


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_named_exist(name):
    named = re.findall(r"\b(?:mobiledet|configs|tools|demo|benchmarks|docs|tests)/[\w/]+\.(?:py|md)\b", TEXTS[name])
    assert [path for path in named if not (CHECKOUT / path).is_file()] == []


def options(name):
    """Every option of a command, those of its own commands too; none where there is no such command."""
    parser = Parser(prog=name)
    next(command for command in COMMANDS if command.name == name).module.add_arguments(parser)
    found, parsers = set(), [parser]
    for parser in parsers:
        found.update(parser._option_string_actions)
        if parser._subparsers is not None:
            parsers += parser._subparsers._group_actions[0].choices.values()
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_commands_options_and_recipes_exist(name):
    text = TEXTS[name].replace("\\\n", " ")
    for words in re.findall(r"(?:`|^ {4,}(?:\S*/)?)mobiledet ([a-z][^`\n#]*)", text, re.MULTILINE):
        command, *rest = words.split()
        used = {word for word in rest if re.fullmatch(r"--?[a-z][\w-]*", word)}
        assert used <= options(command), f"{name}: mobiledet {words}"
        if command in ("train", "configs") and rest and re.fullmatch(r"[a-z]\w+", rest[0]):
            assert rest[0] in recipes(), f"{name}: mobiledet {words}"


@pytest.mark.parametrize(("name", "block"), CODE, ids=[f"{name}-{index}" for index, (name, _) in enumerate(CODE)])
def test_imports_in_examples_work(name, block):
    pytest.importorskip("torch")
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("mobiledet"):
            for alias in node.names:
                assert hasattr(importlib.import_module(node.module), alias.name), f"{name}: {alias.name}"


def test_the_reading_list_has_true_line_counts():
    rows = re.findall(r"^\| \d+ \| \[`[\w/.]+`\]\(([\w/.]+)\) \| (\d+) \|", TEXTS["README.md"], re.MULTILINE)
    assert len(rows) >= 12
    lines = {path: len((CHECKOUT / path).read_text(encoding="utf-8").splitlines()) for path, _ in rows}
    wrong = {path: lines[path] for path, said in rows if abs(lines[path] - int(said)) > 10}
    assert wrong == {}, "the README's line counts are out of date"
    assert sum(lines.values()) <= 3200, "the core is to be read in an afternoon"


def test_the_diagram_shows_the_layers_that_are_tested():
    diagram = (CHECKOUT / "docs" / "images" / "layers.svg").read_text(encoding="utf-8")
    parts = [part for layer in reversed(LAYERS) for part in layer if part not in ("", "version", "__main__")]
    assert re.findall(r"<text [^>]*>([\w.]+)", diagram) == parts


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    words = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(TEXTS) - 2
    outside = re.compile(r"<(?:script|link|img)[^>]* (?:src|href)=[\"']?(?:https?:)?//")
    assert [page.name for page in pages if outside.search(page.read_text(encoding="utf-8"))] == []
