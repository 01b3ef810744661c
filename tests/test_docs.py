"""README and docs/ say what is there: links, paths, imports and the lines of the files to read."""

import ast
import importlib
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
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
