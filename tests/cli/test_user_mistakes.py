"""Mistakes at the command line, and the messages to them, which messages.json keeps.

Each mistake must end with status 1 (2 where argparse sees it), without a traceback, with one clear message as the
last thing on stderr that names the wrong value, the place and the remedy, and with every file as it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import Page
from programs import Finished, mobiledet, mobiledet_in_process, process_state_kept

from mobiledet.data.faults import Fault

SETTINGS = """
    model=ModelConfig(backbone=BackboneConfig(alpha=0.25), input_size=(64, 80)),
    optimizer=OptimizerConfig(lr=0.01),
    schedule=ScheduleConfig(epochs=1, batch_size=2),
    train=TrainConfig(output="runs", threads=1, device="cpu", precision="float32"),
"""
RECIPE = f"from mobiledet.config import *\nconfig = Config({SETTINGS})\n"


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things to get wrong: ``tiny.py``, a good recipe, ``data/``, a good data set of 4 and 2 images,
    ``run/``, a trained run, and ``images/a.jpg``.
    """
    from mobiledet.config import apply_overrides, load_config
    from mobiledet.data.shapes import generate_shapes
    from mobiledet.training.start import start_run

    folder = tmp_path_factory.mktemp("mistakes") / "bench"
    generate_shapes(folder / "data", train=4, val=2, size=(64, 80), seed=5)
    (folder / "tiny.py").write_text(RECIPE)
    (folder / "images").mkdir()
    shutil.copy(folder / "data/val/000001.jpg", folder / "images/a.jpg")
    overrides = [f"data.root={folder / 'data'}", "data.workers=0", f"train.output={folder / 'trained'}"]
    with pytest.MonkeyPatch.context() as patch, process_state_kept():
        patch.setenv("MOBILEDET_CACHE", str(tmp_path_factory.getbasetemp() / "mobiledet-cache"))
        run, status = start_run(apply_overrides(load_config(folder / "tiny.py"), overrides))
    assert status == 0
    run.rename(folder / "run")
    shutil.rmtree(folder / "trained")
    recorded = json.loads((folder / "run/config.json").read_text())
    recorded["data"]["root"] = "data"
    (folder / "run/config.json").write_text(json.dumps(recorded))
    return folder


@pytest.fixture(autouse=True)
def _copied(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of it, which is the working directory."""
    folder = tmp_path / "bench"
    shutil.copytree(original, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")  # argparse folds its usage to the terminal
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("MOBILEDET_OFFLINE", "1")
    monkeypatch.delenv("MOBILEDET_WEIGHTS", raising=False)


def files() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def reported(finished: Finished) -> str:
    """The message that a failed program ends with: one line, or for a data set one line for each kind of fault."""
    assert "Traceback" not in finished.stdout + finished.stderr, finished.stderr
    lines = finished.stderr.rstrip().splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith("error: ") or ": error: " in line]
    assert starts, f"no error reported: {finished}"
    first, *rest = lines[starts[-1] :]
    if rest:
        assert first.endswith("can't be used:")
        assert all(line.startswith("- ") for line in rest), rest
        assert all("Remedy: " in line for line in rest), rest
    assert max(map(len, [first, *rest])) < 700, "nobody reads that"
    return "\n".join([first, *rest])


Prepare = Callable[[], object]
Change = Callable[[dict[str, Any]], object]
Mistake = tuple[str, Prepare, str]
"""Tool, what to prepare first, arguments separated by spaces."""


def nothing() -> None:
    """The mistake is in the arguments."""


def write(name: str, content: str | bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


def file(name: str, content: str | bytes) -> Prepare:
    return lambda: write(name, content)


def gone(name: str) -> Prepare:
    return lambda: Path(name).unlink()


def cut(name: str) -> Prepare:
    return lambda: write(name, Path(name).read_bytes()[:-400])


def data(change: Change, split: str = "train") -> Prepare:
    def prepare() -> None:
        path = Path(f"data/annotations/instances_{split}.json")
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return prepare


def recipe(old: str, new: str) -> Prepare:
    assert old in RECIPE
    return file("wrong.py", RECIPE.replace(old, new))


def saved(name: str, content: object) -> Prepare:
    return lambda: torch.save(content, name)


def checkpoint(name: str, change: Change) -> Prepare:
    def prepare() -> None:
        content = torch.load("run/best.pt", weights_only=True)
        change(content)
        torch.save(content, name)

    return prepare


def add_one(content: dict[str, Any]) -> None:
    next(iter(content["model"].values())).add_(1)


rename_classes = data(lambda d: [c.update(name=f"thing {c['id']}") for c in d["categories"]], "val")


def backbone() -> None:
    from mobiledet.config import BackboneConfig
    from mobiledet.models.mobilenet_v1 import MobileNetV1
    from mobiledet.weights.checkpoint import save_checkpoint
    from mobiledet.weights.imagenet import ImageNetBackbone

    config = BackboneConfig(alpha=0.25)
    state = MobileNetV1(alpha=0.25).state_dict()
    found = ImageNetBackbone(config, (64, 64), (0.0,) * 3, (1.0,) * 3, state, None, folded=False)
    save_checkpoint(Path("backbone.pt"), {"mobiledet": "0", **found.payload()})


def empty_folder(name: str) -> Prepare:
    return lambda: Path(name).mkdir(parents=True)


ON_DATA = "tiny.py data.root=data data.workers=0"
TO_TRAIN = "data/annotations/instances_train.json"
SCORE = "run/best.pt --data data --workers 0 --threads 1"
DETECT = "--threads 1 -o out"

CONFIGS: dict[str, Mistake] = {
    "config misspelt": ("train", nothing, "tiyn.py"),
    "config in a missing folder": ("train", file("configs/tiny.py", RECIPE), "confgs/tiny.py"),
    "config is a folder": ("train", nothing, "data"),
    "config not Python": ("train", file("a.yaml", "a: 1"), "a.yaml"),
    "syntax error": ("train", recipe("epochs=1,", "epochs=,"), "wrong.py"),
    "config not text": ("train", file("a.py", b"\x80\x00"), "a.py"),
    "config crashes": ("train", file("a.py", "x = 1\ny = x / 0"), "a.py"),
    "config exits": ("train", file("a.py", "raise SystemExit(0)"), "a.py"),
    "no `config` in it": ("train", recipe("config = ", "cfg = "), "wrong.py"),
    "`config` a dict": ("train", file("a.py", "config = {}"), "a.py"),
    "misspelt in the file": ("train", recipe("epochs", "epoch"), "wrong.py"),
    "misspelt override": ("train", nothing, "tiny.py schedule.epoch=2"),
    "override of nothing": ("train", nothing, "tiny.py banana=2"),
    "override without =": ("train", nothing, "tiny.py schedule.epochs 2"),
    "override of a group": ("train", nothing, "tiny.py schedule=2"),
    "not a number": ("train", nothing, "tiny.py schedule.epochs=two"),
    "no epochs": ("train", nothing, "tiny.py schedule.epochs=0"),
    "negative alpha": ("train", nothing, "tiny.py model.backbone.alpha=-1"),
    "not a number at all": ("train", nothing, "tiny.py optimizer.lr=nan"),
    "size in three": ("train", nothing, "tiny.py model.input_size=300x300x3"),
    "a mean in two": ("train", nothing, "tiny.py model.mean=127,127"),
    "data without a key": ("train", nothing, "tiny.py data"),
    "data as a group": ("train", nothing, "tiny.py data=data"),
    "unknown head": ("train", nothing, "tiny.py model.head.kind=yolo"),
    "unknown optimizer": ("train", nothing, "tiny.py optimizer.name=adam"),
    "name with a slash": ("train", nothing, "tiny.py name=a/b"),
    "file name with a plus": ("train", file("a+b.py", RECIPE), "a+b.py"),
    "steps forgotten": ("train", nothing, "tiny.py schedule.policy=step"),
    "nothing named": ("train", nothing, ""),
    "unknown option": ("train", nothing, "tiny.py --epochs 2"),
    "cost of a missing config": ("cost", nothing, "tiyn.py"),
    "cost of no classes": ("cost", nothing, "tiny.py --classes 0"),
    "cost over a file": ("cost", file("a.json", "mine"), "tiny.py --json a.json"),
    "cost of nothing": ("cost", nothing, ""),
}  # fmt: skip

DATA: dict[str, Mistake] = {
    "root missing": ("train", nothing, "tiny.py data.root=dta"),
    "root is a file": ("train", nothing, "tiny.py data.root=tiny.py"),
    "root is another split": ("train", nothing, "tiny.py data.root=data/val data.val_split=none"),
    "split missing": ("train", nothing, f"{ON_DATA} data.train_split=trian"),
    "no val": ("train", gone("data/annotations/instances_val.json"), ON_DATA),
    "annotations missing": ("train", nothing, f"{ON_DATA} data.train_annotations=a.json"),
    "not JSON": ("train", file(TO_TRAIN, "{"), ON_DATA),
    "predictions": ("train", file(TO_TRAIN, '[{"image_id": 1, "score": 1}]'), ON_DATA),
    "no boxes": ("train", data(lambda d: d.update(annotations=[])), ON_DATA),
    "no images": ("train", data(lambda d: d.update(images=[])), ON_DATA),
    "category id doubled": ("train", data(lambda d: d["categories"][1].update(id=1)), ON_DATA),
    "unknown category": ("train", data(lambda d: d["annotations"][0].update(category_id=99)), ON_DATA),
    "box of NaN": ("train", data(lambda d: d["annotations"][0].update(bbox=[1, 2, float("nan"), 4])), ON_DATA),
    "text as image": ("train", file("data/train/000002.jpg", "hello"), ON_DATA),
    "image cut short": ("train", cut("data/train/000002.jpg"), ON_DATA),
    "size mismatch": ("train", data(lambda d: d["images"][1].update(width=999)), ON_DATA),
    "leaves the folder": ("train", data(lambda d: d["images"][1].update(file_name="../a.jpg")), ON_DATA),
    "val cut short": ("train", cut("data/val/000001.jpg"), ON_DATA),
    "image missing": ("train", gone("data/train/000002.jpg"), ON_DATA),
    "other classes in val": ("train", rename_classes, ON_DATA),
    "classes miscounted": ("train", nothing, f"{ON_DATA} model.num_classes=3"),
}  # fmt: skip

RUNS: dict[str, Mistake] = {
    "output in a file": ("train", file("a", "mine"), f"{ON_DATA} train.output=a"),
    "no such device": ("train", nothing, f"{ON_DATA} train.device=gpu"),
    "no GPU": ("train", nothing, f"{ON_DATA} train.device=cuda"),
    "float16 without GPU": ("train", nothing, f"{ON_DATA} train.precision=float16"),
    "resume of no run": ("train", nothing, "--resume data"),
    "resume of the folder above": ("train", nothing, "--resume ."),
    "resume of nothing": ("train", nothing, "--resume runs/7"),
    "resume of a checkpoint": ("train", nothing, "--resume run/last.pt"),
    "resume changed": ("train", nothing, "--resume run schedule.epochs=9"),
    "resume with a config": ("train", nothing, "--resume run tiny.py"),
    "resume without GPU": ("train", nothing, "--resume run train.device=cuda"),
    "resume, config cut": ("train", file("run/config.json", '{"name": "tin'), "--resume run"),
    "resume, config a list": ("train", file("run/config.json", "[]"), "--resume run"),
    "resume, unknown setting": ("train", file("run/config.json", '{"banana": 1}'), "--resume run"),
    "resume, checkpoint cut": ("train", cut("run/last.pt"), "--resume run"),
    "resume on other data": ("train", data(lambda d: d["annotations"].pop()), "--resume run"),
}  # fmt: skip

SCORING: dict[str, Mistake] = {
    "checkpoint misspelt": ("eval", nothing, "run/bset.pt --data data"),
    "run misspelt": ("eval", nothing, "rnu/best.pt --data data"),
    "folder of no run": ("eval", nothing, "data --data data"),
    "folder above the run": ("eval", nothing, ". --data data"),
    "checkpoint cut short": ("eval", cut("run/best.pt"), SCORE),
    "text as checkpoint": ("eval", file("a.pt", "hello"), "a.pt --data data"),
    "empty checkpoint": ("eval", file("a.pt", ""), "a.pt --data data"),
    "foreign checkpoint": ("eval", saved("resnet.pt", {"state_dict": {}}), "resnet.pt --data data"),
    "checkpoint with code": ("eval", saved("code.pt", {"model": subprocess.Popen}), "code.pt --data data"),
    "checkpoint altered": ("eval", checkpoint("altered.pt", add_one), "altered.pt --data data"),
    "checkpoint of tomorrow": ("eval", checkpoint("newer.pt", lambda c: c.update(version=99)), "newer.pt --data data"),
    "other classes": ("eval", rename_classes, SCORE),
    "no such split": ("eval", nothing, f"{SCORE} --split tset"),
    "results over a file": ("eval", file("a.json", "mine"), f"{SCORE} --json a.json"),
    "results into a file": ("eval", nothing, f"{SCORE} --results tiny.py/a.json"),
    "no batch": ("eval", nothing, f"{SCORE} --batch-size 0"),
    "batch in words": ("eval", nothing, f"{SCORE} --batch-size two"),
    "a hundred thousand threads": ("predict", nothing, f"run images {DETECT} --threads 100000"),
    "threads below none": ("eval", nothing, f"{SCORE} --threads -1"),
    "eval without GPU": ("eval", nothing, f"{SCORE} --device cuda"),
}  # fmt: skip

PREDICTING: dict[str, Mistake] = {
    "image missing": ("predict", nothing, f"run images/b.jpg {DETECT}"),
    "no images": ("predict", empty_folder("none"), f"run none {DETECT}"),
    "results there": ("predict", file("out/detections.json", "mine"), f"run images {DETECT}"),
    "drawing there": ("predict", file("out/a.jpg", "mine"), f"run images {DETECT}"),
    "output a file": ("predict", file("out", "mine"), f"run images {DETECT}"),
    "onto the images": ("predict", nothing, "run images --threads 1 -o images"),
    "swapped": ("predict", nothing, f"images/a.jpg run/best.pt {DETECT}"),
    "threshold 7": ("predict", nothing, f"run images {DETECT} --threshold 7"),
    "run without best": ("predict", gone("run/best.pt"), f"run images {DETECT}"),
    "shapes among files": ("make-shapes", nothing, "images"),
    "shapes of 12": ("make-shapes", nothing, "new --size 12"),
    "shapes too small": ("make-shapes", nothing, "new --size 12x12"),
    "no shapes": ("make-shapes", nothing, "new --train 0"),
    "other shapes": ("make-shapes", nothing, "data --train 9"),
    "shapes in a file": ("make-shapes", file("a", "mine"), "a/b"),
}  # fmt: skip

INIT = f"{ON_DATA} model.init="

WEIGHTS: dict[str, Mistake] = {
    "name misspelt": ("predict", nothing, f"ssd_mobilenet_v1_coco images {DETECT}"),
    "offline": ("eval", nothing, "ssd_mobilenet_v1_075_coco --data data"),
    "backbone as detector": ("predict", backbone, f"backbone.pt images {DETECT}"),
    "not converted": ("eval", file("a.tflite", "hello"), "a.tflite --data data"),
    "unknown weights": ("weights", nothing, "fetch resnet"),
    "fetch misspelt": ("weights", nothing, "fetch mobilenetv1_10"),
    "import of nothing": ("weights", nothing, "import a.tflite -o a.pt"),
    "import of text": ("weights", file("a.tflite", "hello, world"), "import a.tflite -o a.pt"),
    "import of a torso": ("weights", file("a.tflite", b"\x1c\0\0\0TFL3" + bytes(20)), "import a.tflite -o a.pt"),
    "import of no safetensors": ("weights", file("a.safetensors", "hello"), "import a.safetensors -o a.pt"),
    "import of no graph": ("weights", file("a.pb", "hello"), "import a.pb -o a.pt"),
    "import over a file": ("weights", file("a.pt", "mine"), "import a.tflite -o a.pt"),
    "import without output": ("weights", nothing, "import a.tflite"),
    "weights without a word": ("weights", nothing, ""),
    "init missing": ("train", nothing, f"{INIT}run/bset.pt"),
    "init misspelt": ("train", nothing, f"{INIT}mobilenetv1-100"),
    "init of another width": ("train", nothing, f"{INIT}run/best.pt model.backbone.alpha=0.5"),
    "init of another scale": ("train", nothing, f"{INIT}run/best.pt model.mean=(0,0,0)"),
    "init of text": ("train", file("a.pt", "hello"), f"{INIT}a.pt"),
    "nothing held out": ("train", gone("data/annotations/instances_val.json"), f"{ON_DATA} data.hold_out=1.5"),
}  # fmt: skip

CHECKING: dict[str, Mistake] = {
    "no data": ("check", empty_folder("none"), "none"),
    "data missing": ("check", nothing, "dta"),
    "output filled": ("check", nothing, "data -o images"),
    "output a file": ("check", file("a.json", "mine"), "data -o a.json"),
    "figures over a file": ("check", file("a.json", "mine"), "data --json a.json"),
    "recipe missing": ("check", nothing, "data --config tiyn.py"),
    "setting misspelt": ("check", nothing, "data model.inputsize=3 -o out"),
    "recipe against its weights": ("check", nothing, "data --config tiny.py -o out model.init=run model.mean=(0,0,0)"),
    "model missing": ("check", nothing, "data --model run/bset.pt"),
    "no images": ("check", nothing, "data --limit 0"),
}  # fmt: skip

CASES = {
    f"{mistake[0]}: {name}": mistake
    for table in (CONFIGS, DATA, RUNS, SCORING, PREDICTING, WEIGHTS, CHECKING)
    for name, mistake in table.items()
}

FILE = Path(__file__).with_name("messages.json")
MESSAGES: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8"))
"""The message to each mistake. To accept changed ones: ``UPDATE_MESSAGES=1 pytest tests/cli``, and read the diff."""


def comparable(message: str) -> str:
    """The message without what depends on the machine: folders, Python's own words, sizes of PyTorch's files."""
    message = message.replace(str(Path.cwd()), "BENCH").replace(os.environ["MOBILEDET_CACHE"], "CACHE")
    message = re.sub(r"(SyntaxError|ValueError): .*?(;|$)", r"SyntaxError\2", message)
    message = re.sub(r"line \d+ column \d+ \(char \d+\)", "line N", message)
    return re.sub(r"\b\d[\d,.]{3,} (?=bytes|KiB)", "N ", message)


@pytest.mark.parametrize("case", CASES)
def test_mistake_is_explained(case: str) -> None:
    tool, prepare, arguments = CASES[case]
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    prepare()
    before = files()
    finished = mobiledet_in_process(tool, *arguments.split())
    message = comparable(reported(finished))
    if os.environ.get("UPDATE_MESSAGES"):
        MESSAGES[case] = message
        known = {name: MESSAGES[name] for name in CASES if name in MESSAGES}
        FILE.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert message == MESSAGES[case]
    assert finished.status == (1 if message.startswith("error: ") else 2), "2 is for what argparse refuses"
    assert files() == before, "files were changed or left behind"


def test_every_message_belongs_to_a_mistake() -> None:
    assert list(json.loads(FILE.read_text(encoding="utf-8"))) == list(CASES)


@pytest.mark.parametrize("case", ["train: misspelt override", "predict: no images", "make-shapes: shapes of 12"])
def test_a_process_of_its_own_ends_the_same(case: str) -> None:
    tool, prepare, arguments = CASES[case]
    prepare()
    finished = mobiledet(tool, *arguments.split())
    assert comparable(reported(finished)) == MESSAGES[case]
    assert finished == mobiledet_in_process(tool, *arguments.split())


def test_ids_of_zero_are_reported_and_trained_on() -> None:
    def start_at_zero(content: dict[str, Any]) -> None:
        content["categories"][0]["id"] = 0
        for image in content["images"]:
            image["id"] -= 1
        for annotation in content["annotations"]:
            annotation["id"] -= 1
            annotation["image_id"] -= 1
            annotation["category_id"] *= annotation["category_id"] != 1

    data(start_at_zero, "train")()
    data(start_at_zero, "val")()
    finished = mobiledet_in_process("train", *ON_DATA.split())
    assert finished.status == 0, finished.stderr
    assert finished.stderr.count(f"repaired: 2 {Fault.ANNOTATION_ID.text} (annotations/instances_train.json, ") == 1
    assert "run folder: runs/tiny/1" in finished.stdout
    best = torch.load("runs/tiny/1/best.pt", weights_only=True)
    assert best["categories"][0] == {"id": 0, "name": "circle"}


def test_a_bad_image_among_good_ones_is_named_and_the_others_are_done() -> None:
    write("images/b.jpg", "hello")
    finished = mobiledet_in_process("predict", "run", "images", "--threads", 1, "-o", "out")
    assert finished.status == 1
    assert "images/b.jpg is not a JPEG" in reported(finished)
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.jpg", "detections.json"]
    assert [entry["file"] for entry in json.loads(Path("out/detections.json").read_text())] == ["images/a.jpg"]


def test_data_that_moved_is_named_with_data_root() -> None:
    shutil.move("data", "moved")
    finished = mobiledet_in_process("train", "--resume", "run")
    assert "add data.root=FOLDER to --resume run" in reported(finished)
    assert mobiledet_in_process("train", "--resume", "run", "data.root=moved").status == 0


def test_a_finished_run_ends_with_what_it_is_worth_and_the_next_commands() -> None:
    finished = mobiledet_in_process("train", *ON_DATA.split(), "train.output=my runs")
    assert finished.status == 0, finished.stderr
    page = Page(Path("my runs/tiny/1/report.html").read_text())
    page.check_alone()
    record = json.loads(Path("my runs/tiny/1/metrics.json").read_text())
    assert f"{record['AP']:.3f}" in page.text
    scored = mobiledet_in_process("eval", "my runs/tiny/1", "--workers", 0, "--threads", 1)
    table = scored.stdout[scored.stdout.index("\nclass ") + 1 :].partition("best F1")[0]
    assert table.splitlines()[0].split() == ["class", "AP", "AP50", "boxes"]
    assert table in finished.stdout
    assert ("shown from a score of" in finished.stdout) is ("best F1" in scored.stdout)
    last = finished.stdout.splitlines()[-3:]
    commands = "mobiledet predict 'my runs/tiny/1' image.jpg", "mobiledet export 'my runs/tiny/1' -o model.onnx"
    assert last == ["run folder: my runs/tiny/1", f"next: {commands[0]}", f"      {commands[1]}"]
    alone = mobiledet_in_process("train", *ON_DATA.split(), "data.val_split=none")
    assert alone.stdout.startswith("run folder: runs/tiny/1\nnext: "), "there is nothing to score on"
    assert not Path("runs/tiny/1/report.html").exists()


def test_the_good_bench_is_good() -> None:
    """Without a mistake every program ends well, so that the mistakes above are what stops them."""
    for tool, arguments in [
        ("train", f"{ON_DATA} train.output=new"),
        ("train", "--resume run"),
        ("eval", f"{SCORE} --json a.json"),
        ("predict", f"run images {DETECT}"),
        ("cost", "tiny.py"),
        ("make-shapes", "data --train 4 --val 2 --size 64x80 --seed 5"),
    ]:
        finished = mobiledet_in_process(tool, *arguments.split())
        assert finished.status == 0, finished.stderr
        assert "error" not in finished.stderr
