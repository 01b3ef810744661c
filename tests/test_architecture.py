"""The house's rules that a reader can't see at a glance: which way imports run, and what they cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mobiledet"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 350


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, *, everywhere=True):
    """Modules a file imports: all of them, or those that importing it runs (not in functions, not for types)."""
    found = set()

    def visit(node):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            # `from mobiledet.data import coco` names a module, too.
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module.startswith("mobiledet"))
        if not everywhere and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if not everywhere and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def below(name, *prefixes):
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def test_the_package_was_found():
    assert len(FILES) > 20
    assert {"mobiledet.errors", "mobiledet.structures", "mobiledet.engine.fit"} <= {module_name(f) for f in FILES}


# Room -> rooms of the package it must never import, not even inside a function.
FORBIDDEN = {
    "mobiledet.ops": [
        "doctor",
        "pretrained",
        "models",
        "engine",
        "data",
        "config",
        "evaluation",
        "postprocess",
        "checkpoint",
        "predictor",
    ],
    "mobiledet.models": [
        "doctor",
        "pretrained",
        "data",
        "engine",
        "evaluation",
        "predictor",
        "checkpoint",
        "visualization",
        "runs",
    ],
    "mobiledet.data": [
        "doctor",
        "pretrained",
        "models",
        "engine",
        "evaluation",
        "predictor",
        "checkpoint",
        "postprocess",
        "ops",
        "runs",
    ],
    "mobiledet.postprocess": ["models", "engine", "data", "config", "evaluation", "predictor", "checkpoint"],
    "mobiledet.config": [
        "doctor",
        "pretrained",
        "models",
        "engine",
        "data",
        "ops",
        "evaluation",
        "predictor",
        "checkpoint",
        "runs",
    ],
    "mobiledet.evaluation": ["models", "engine", "data", "ops", "predictor", "checkpoint"],
    "mobiledet.checkpoint": ["models", "engine", "data", "evaluation", "predictor"],
    "mobiledet.predictor": ["engine", "export", "scoring", "benchmark"],
    "mobiledet.preprocess": ["models", "engine", "data", "config", "runtime", "predictor", "ops", "postprocess"],
    # The detector falls back on the predictor for checkpoints, inside a function.
    "mobiledet.runtime": [
        "models",
        "engine",
        "data",
        "config",
        "ops",
        "postprocess",
        "evaluation",
        "checkpoint",
        "export",
    ],
    "mobiledet.export": ["engine", "doctor", "benchmark"],
    "mobiledet.class_matching": ["models", "engine", "predictor", "checkpoint", "runtime"],
    "mobiledet.benchmark": ["models", "checkpoint", "doctor"],
    "mobiledet.doctor": ["models", "engine", "evaluation", "predictor", "checkpoint", "postprocess", "pretrained"],
    "mobiledet.pretrained": ["doctor", "engine", "data", "evaluation", "predictor"],
    "mobiledet.downloads": ["models", "engine", "data", "config", "ops", "evaluation", "predictor", "coco_download"],
    "mobiledet.coco_download": ["models", "engine", "data", "config", "ops", "evaluation", "predictor"],
    "mobiledet.visualization": ["models", "engine", "predictor", "ops", "checkpoint"],
    "mobiledet.cost": ["engine", "data", "predictor"],
    # It runs on boards without PyTorch; only drawing, reading pictures and describing the machine are others' work.
    "mobiledet.video": [
        "models",
        "engine",
        "config",
        "ops",
        "postprocess",
        "evaluation",
        "checkpoint",
        "export",
        "predictor",
        "doctor",
        "pretrained",
    ],
}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_run_one_way(room):
    members = [path for path in FILES if below(module_name(path), room)]
    assert members, f"{room} is gone; so should be its row"
    wrong = [
        f"{module_name(path)} imports {name}"
        for path in members
        for name in sorted(imports(path))
        if below(name, *(f"mobiledet.{other}" for other in FORBIDDEN[room]))
    ]
    assert wrong == []


def test_the_ground_floor_stands_on_nothing():
    for name in ("errors", "structures"):
        found = {module for module in imports(PACKAGE / f"{name}.py") if below(module, "mobiledet")}
        assert {module for module in found if not below(module, "mobiledet.errors")} == set()
    assert not any(below(module, "mobiledet") for module in imports(PACKAGE / "errors.py"))


def test_nobody_imports_the_tools():
    assert [f for f in FILES if any(below(name, "tools", "demo", "tests", "configs") for name in imports(f))] == []


def test_only_build_reads_model_configs():
    readers = {
        module_name(path)
        for path in FILES
        if below(module_name(path), "mobiledet.models") and any(below(n, "mobiledet.config") for n in imports(path))
    }
    assert readers == {"mobiledet.models.build"}


def test_scoring_and_drawing_need_no_torch():
    for name in ("structures", "errors", "evaluation", "visualization", "cli", "runs"):
        found = imports(PACKAGE / f"{name}.py", everywhere=False)
        assert not any(below(module, "torch", "torchvision") for module in found)


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("mobiledet", ["torch", "cv2", "numpy", "pydantic", "albumentations"]),
        ("mobiledet.errors", ["torch", "cv2", "numpy"]),
        ("mobiledet.structures", ["torch", "cv2"]),
        ("mobiledet.cli", ["torch", "cv2", "numpy"]),
        ("mobiledet.config", ["torch", "cv2", "numpy"]),
        ("mobiledet.evaluation", ["torch"]),
        ("mobiledet.visualization", ["torch"]),
        ("mobiledet.data.coco", ["torch"]),
        ("mobiledet.data.importers.read", ["torch"]),
        ("mobiledet.doctor.checkup", ["torch"]),
        ("mobiledet.downloads", ["torch", "cv2", "numpy", "requests"]),
        ("mobiledet.coco_download", ["torch", "cv2", "numpy", "requests"]),
        ("mobiledet.pretrained.sources", ["torch", "cv2", "numpy"]),
        ("mobiledet.runtime.detector", ["torch", "onnx", "onnxruntime", "openvino", "pydantic", "PIL"]),
        ("mobiledet.runtime.openvino_network", ["torch", "openvino", "onnx"]),
        ("mobiledet.runtime.ncnn_network", ["torch", "ncnn"]),
        ("mobiledet.scoring", ["torch", "onnxruntime", "pydantic"]),
        ("mobiledet.export.certificate", ["torch", "cv2"]),
        ("mobiledet.benchmark", ["torch", "cv2", "onnxruntime"]),
        ("mobiledet.video.session", ["torch", "onnxruntime", "aiohttp", "pydantic"]),
        ("mobiledet.video.server", ["torch", "aiohttp", "onnxruntime", "pydantic"]),
        ("mobiledet.video.capture_worker", ["torch", "onnxruntime", "aiohttp", "psutil"]),
        ("mobiledet.export.ready", ["torch", "onnx", "onnxruntime"]),
    ],
)
def test_importing_stays_light(module, absent):
    found = python(f"import {module}, sys; print(*[name for name in {absent} if name in sys.modules])")
    assert found == []


def test_importing_the_package_is_quick():
    code = "import time; start = time.perf_counter(); import mobiledet; print(time.perf_counter() - start)"
    assert min(float(python(code)[0]) for _ in range(3)) < 0.1


def test_the_package_prints_nothing():
    """`mobiledet.cli` speaks for the programs; everything else logs."""
    guilty = [
        module_name(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert set(guilty) <= {"mobiledet.cli"}


def test_only_the_programs_exit():
    for path in FILES:
        if module_name(path) == "mobiledet.cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("sys.exit", "exit", "quit"), f"{path}: line {node.lineno}"


def test_files_stay_readable_in_one_sitting():
    long = {module_name(f): n for f in FILES if (n := len(f.read_text(encoding="utf-8").splitlines())) > MAX_LINES}
    assert long == {}
