"""The structure that a reader can't see at a glance: which way imports run, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mobiledet"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the bottom up. A module belongs to the longest name that it begins with. It may import its own part and
# whatever lies on a layer below; parts on one layer do not import each other. "" is the package itself.
LAYERS = [
    ["", "errors", "version"],
    ["structures"],
    ["preprocess", "utils"],
    ["ops", "download"],
    ["models", "draw"],
    ["config"],
    ["data", "weights"],
    ["detections"],
    ["runtime"],
    ["evaluation"],
    ["exporters", "training"],
    ["apps.live", "apps.doctor", "apps.benchmark", "apps.report", "apps.cost", "apps.predict"],
    ["api"],
    ["cli"],
    ["__main__"],
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
MAX_LINES = 500
MAX_FILES = 15


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def part(module):
    """The entry of LAYERS that a module belongs to; None for one that belongs to none."""
    name = module.removeprefix("mobiledet").removeprefix(".")
    while name not in LEVEL and name:
        name = name.rpartition(".")[0]
    return name if name or module == "mobiledet" else None


def imports(path, *, everywhere=True):
    """Modules a file imports: all of them, or those that importing it runs (not in functions, not for types)."""
    found = set()

    def visit(node):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from mobiledet.data import coco` names the module coco, `from mobiledet.data.coco import x` doesn't.
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)
        if not everywhere and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if not everywhere and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


# Every import of a module of the package by another, lazy ones and those for types included.
ARROWS = [
    (name, target)
    for name, path in MODULES.items()
    if name != "mobiledet"  # it offers names from above, lazily
    for target in sorted(imports(path))
    if target in MODULES and target != name
]


def test_every_module_has_a_layer():
    assert len(MODULES) > 20
    assert [name for name in MODULES if part(name) is None and name != "mobiledet.apps"] == []
    assert {entry for entry in LEVEL if entry not in {part(name) for name in MODULES}} <= {""}


def test_imports_run_downwards():
    back = [
        f"{name} -> {target}"
        for name, target in ARROWS
        if part(name) != part(target) and LEVEL[part(target)] >= LEVEL[part(name)]
    ]
    assert back == []


def test_no_circles():
    below = {name: {target for source, target in ARROWS if source == name} for name in MODULES}
    while free := [name for name, targets in below.items() if not targets & below.keys()]:
        for name in free:
            del below[name]
    assert below == {}


def test_nobody_imports_the_programs():
    outside = {"tools", "demo", "tests", "configs", "benchmarks"}
    assert [path for path in FILES if any(name.partition(".")[0] in outside for name in imports(path))] == []


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("mobiledet", ["torch", "cv2", "numpy", "pydantic", "albumentations"]),
        ("mobiledet.errors", ["torch", "cv2", "numpy"]),
        ("mobiledet.structures", ["torch", "cv2"]),
        ("mobiledet.detections", ["torch", "cv2", "PIL"]),
        ("mobiledet.cli.common", ["torch", "cv2", "numpy"]),
        ("mobiledet.evaluation.metrics", ["torch"]),
        ("mobiledet.evaluation.predictions", ["torch", "onnxruntime", "pydantic"]),
        ("mobiledet.evaluation.scoring", ["torch"]),
        ("mobiledet.apps.report.write", ["torch", "matplotlib"]),
        ("mobiledet.data.opening", ["torch"]),
        ("mobiledet.draw.boxes", ["torch", "matplotlib"]),
        ("mobiledet.draw.figures", ["torch", "matplotlib"]),
        ("mobiledet.data.coco", ["torch"]),
        ("mobiledet.data.formats.choose", ["torch"]),
        ("mobiledet.download", ["torch", "cv2", "numpy", "requests"]),
        ("mobiledet.download.coco", ["torch", "cv2", "numpy", "requests"]),
        ("mobiledet.weights.catalogue", ["torch", "cv2", "numpy"]),
        ("mobiledet.runtime.detector", ["torch", "onnx", "onnxruntime", "openvino", "pydantic", "PIL"]),
        ("mobiledet.runtime.openvino", ["torch", "openvino", "onnx"]),
        ("mobiledet.runtime.ncnn", ["torch", "ncnn"]),
        ("mobiledet.exporters.agreement", ["torch", "cv2"]),
        ("mobiledet.apps.benchmark.run", ["torch", "onnxruntime", "pydantic", "matplotlib"]),
        ("mobiledet.apps.benchmark.worker", ["torch", "onnxruntime", "pydantic", "matplotlib"]),
        ("mobiledet.apps.live.card.fps_page", ["torch", "onnxruntime", "cv2", "matplotlib"]),
        ("mobiledet.apps.live.session", ["torch", "onnxruntime", "aiohttp", "pydantic"]),
        ("mobiledet.apps.live.web.server", ["torch", "aiohttp", "onnxruntime", "pydantic"]),
        ("mobiledet.apps.live.sources.capture_worker", ["torch", "onnxruntime", "aiohttp", "psutil"]),
        ("mobiledet.exporters.prepare_model", ["torch", "onnx", "onnxruntime"]),
    ],
)
def test_importing_stays_light(module, absent):
    found = python(f"import {module}, sys; print(*[name for name in {absent} if name in sys.modules])")
    assert found == []


def test_importing_the_package_is_quick():
    code = "import time; start = time.perf_counter(); import mobiledet; print(time.perf_counter() - start)"
    assert min(float(python(code)[0]) for _ in range(3)) < 0.1


def test_only_the_command_line_prints_and_exits():
    calls = {
        (ast.unparse(node.func), name)
        for name, path in MODULES.items()
        if part(name) != "cli"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }
    assert [name for call, name in calls if call in ("print", "sys.exit", "exit", "quit")] == []


def test_files_and_folders_stay_readable_in_one_sitting():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
    folders = [path.parent for path in FILES if path.name != "__init__.py"]
    assert {folder.name for folder in folders if folders.count(folder) > MAX_FILES} == set()
