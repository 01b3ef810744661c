"""Small generated data, a config that trains on it in a second, and the real data sets if they are there."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Networks this small gain nothing from a second thread, and lose a lot where two test processes share the cores.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell's background jobs ignore Ctrl-C, and so would all processes that the tests start and send one to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from mobiledet.config import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    apply_overrides,
)

CHECKOUT = Path(__file__).resolve().parents[1]

ConfigMaker = Callable[..., Config]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILEDET_CACHE", str(tmp_path_factory.getbasetemp() / "mobiledet-cache"))
    monkeypatch.delenv("MOBILEDET_WEIGHTS", raising=False)


@pytest.fixture(scope="session")
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(scope="session")
def documented() -> Callable[[str], dict[str, Any]]:
    """``documented("cell_head.py")``: what the example of that name in docs/ defines, run as it stands there."""
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted((CHECKOUT / "docs").glob("*.md")))
    examples = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", pages, re.DOTALL))

    def run(name: str) -> dict[str, Any]:
        scope: dict[str, Any] = {"__name__": Path(name).stem}
        exec(compile(examples[name], name, "exec", dont_inherit=True), scope)
        return scope

    return run


@pytest.fixture(scope="session")
def tiny_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated data set: 12 images to train on, 4 to score on. Tests that change it work on a copy."""
    from mobiledet.data.shapes import generate_shapes

    return generate_shapes(tmp_path_factory.mktemp("data") / "shapes", train=12, val=4, size=(72, 96), seed=3)


@pytest.fixture(scope="session")
def tiny_config() -> ConfigMaker:
    """``tiny_config(root, "schedule.epochs=3", ...)``: a recipe that trains on ``tiny_shapes`` in about a second."""

    def make(root: Path, *overrides: str) -> Config:
        config = Config(
            name="tiny",
            model=ModelConfig(backbone=BackboneConfig(alpha=0.25), input_size=(64, 80)),
            data=DataConfig(root=str(root), augment=AugmentConfig.light(), workers=0),
            optimizer=OptimizerConfig(name="sgd", lr=0.02),
            schedule=ScheduleConfig(epochs=2, batch_size=4, warmup_steps=2),
            train=TrainConfig(precision="float32", device="cpu", threads=1, ema_decay=0.9),
        )
        return apply_overrides(config, overrides)

    return make


SHARED = Path(os.environ.get("MOBILEDET_TEST_DATA") or CHECKOUT.parent / "shared")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Folder of real TensorFlow Lite files, or a skip."""
    folder = SHARED / "weights"
    if not (folder / "ssd_mobilenet_v1_0.75_300_coco_quant.tflite").is_file():
        pytest.skip(f"no real weights in {folder}; set MOBILEDET_TEST_DATA to the folder that holds weights/")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets, or a skip."""
    base = SHARED / "data"
    if not (base / "coco-mini").is_dir():
        pytest.skip(f"no real data in {base}; set MOBILEDET_TEST_DATA to the folder that holds data/coco-mini")
    return base
