"""What all runtimes have in common; the kind of file and its own settings are tested beside this."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from tiny_detectors import SIZE, assert_same, expected, make_images, spoil, tiny_detector

from mobiledet import Detector
from mobiledet.errors import MissingDependencyError, ModelFileError
from mobiledet.exporters.base import ExportOptions
from mobiledet.exporters.choose import EXPORTERS
from mobiledet.runtime.choose import RUNTIMES, find_runtime, open_backend

MODEL, CARD = tiny_detector("sigmoid", vote_iou=0.5)
NAMES = {"onnx": "onnxruntime", "openvino": "openvino", "ncnn": "ncnn", "litert": "LiteRT", "frigate": "LiteRT"}
FILES = {"openvino": ("model.xml", "model.bin"), "ncnn": ("model.ncnn.param", "model.ncnn.bin")}


@pytest.fixture(scope="module", params=EXPORTERS, ids=lambda exporter: exporter.name)
def exported(request, tmp_path_factory):
    """A model for each runtime: its path."""
    exporter = request.param
    if missing := [package for package in exporter.packages if find_spec(package) is None]:
        pytest.skip(f"{missing} not installed")
    path = (
        tmp_path_factory.mktemp(exporter.name)
        / f"model{'' if exporter.runtime.folder_file else exporter.runtime.suffix}"
    )
    exporter.write(MODEL, CARD, path, ExportOptions(exporter.name), ())
    return path


def test_it_finds_what_the_checkpoint_finds(exported):
    runtime, backend = find_runtime(exported), open_backend(exported, threads=1)
    assert runtime in RUNTIMES
    assert backend.card == CARD
    assert backend.runtime.startswith(NAMES[runtime.name])
    for image in make_images(2)[:, None]:
        assert_same(backend.run(image, 0.01, 0.6), expected(MODEL, image))


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda exporter: exporter.name)
def test_class_agnostic_suppression_travels(exporter, tmp_path):
    if missing := [package for package in exporter.packages if find_spec(package) is None]:
        pytest.skip(f"{missing} not installed")
    model, card = tiny_detector("sigmoid")
    model.postprocess = replace(model.postprocess, class_agnostic=True)
    postprocess = {**card.config["model"]["postprocess"], "class_agnostic": True}
    card = replace(card, config={**card.config, "model": {**card.config["model"], "postprocess": postprocess}})
    path = tmp_path / f"model{'' if exporter.runtime.folder_file else exporter.runtime.suffix}"
    exporter.write(model, card, path, ExportOptions(exporter.name), ())
    (image,) = make_images(1)[:, None]
    wanted = expected(model, image)
    assert not np.array_equal(wanted[1], expected(MODEL, image)[1])
    assert_same(open_backend(path, threads=1).run(image, 0.01, 0.6), wanted)


@pytest.mark.parametrize(("score", "iou"), [(0.0, 0.6), (0.3, 0.6), (0.01, 0.2), (0.01, 0.95)])
def test_thresholds_are_given_when_running(exported, score, iou):
    image = make_images(1)
    assert_same(open_backend(exported, threads=1).run(image, score, iou), expected(MODEL, image, score, iou))


def test_threads_of_the_caller_dont_mix_up_their_images(exported):
    detector, images = Detector(exported, threads=1), list(make_images(6))
    alone = [detector(image).boxes.tobytes() for image in images]
    assert len(set(alone)) == len(images)
    with ThreadPoolExecutor(4) as pool:
        assert [found.boxes.tobytes() for found in pool.map(detector, images * 10)] == alone * 10


def test_results_outlive_the_next_run(exported):
    backend, images = open_backend(exported, threads=1), make_images(2)
    first = backend.run(images[:1], 0.01, 0.6)
    before = first.boxes.copy()
    backend.run(images[1:], 0.01, 0.6)
    np.testing.assert_array_equal(first.boxes, before)


def test_images_may_be_read_only_or_strided(exported):
    backend, images = open_backend(exported, threads=1), make_images(1)
    wide = np.zeros((1, SIZE[0], 2 * SIZE[1], 3), np.uint8)
    wide[:, :, ::2] = images
    strided = wide[:, :, ::2]
    strided.flags.writeable = False
    np.testing.assert_array_equal(backend.run(strided, 0.01, 0.6).boxes, backend.run(images, 0.01, 0.6).boxes)
    with pytest.raises(ValueError, match=r"takes uint8 images \(1, 64, 96, 3\), not \(1, 96, 64, 3\)"):
        backend.run(images.transpose(0, 2, 1, 3), 0.01, 0.6)


def test_stages_add_up(exported):
    stages = open_backend(exported, threads=1).stages(make_images(1), 5)
    assert list(stages) == ["network", "decode+nms"]
    assert min(stages.values()) > 0


@pytest.mark.parametrize("file", [0, 1])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_damage_in_a_folder_is_found(exported, tmp_path, file, how):
    if find_runtime(exported).name not in FILES:
        pytest.skip("not a folder with a card of its own")
    path = shutil.copytree(exported, tmp_path / "copy") / FILES[find_runtime(exported).name][file]
    message = spoil(path, how)
    with pytest.raises(ModelFileError, match=message) as error:
        find_runtime(exported).open(path.parent, threads=1, provider=None, spin=True)
    assert path.name in str(error.value)


def test_a_folder_is_named_by_its_file_too_and_needs_its_card(exported, tmp_path):
    if find_runtime(exported).name not in FILES:
        pytest.skip("not a folder with a card of its own")
    folder, runtime = shutil.copytree(exported, tmp_path / "copy"), find_runtime(exported)
    file = folder / runtime.folder_file
    assert find_runtime(file) == runtime
    assert runtime.model_path(file) == folder
    assert_same(open_backend(file, threads=1).run(make_images(1), 0.01, 0.6), expected(MODEL, make_images(1)))
    (folder / "card.json").unlink()
    with pytest.raises(ModelFileError, match=r"has no card\.json, so it isn't a model that mobiledet export wrote"):
        open_backend(folder)


def test_the_package_isnt_installed(exported, monkeypatch):
    package = find_runtime(exported).package
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=f"needs the package {package}, .*pip install"):
        Detector(exported)


def test_scoring_needs_no_torch(exported, tiny_shapes):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mobiledet.cli.main import main\n"
        f"main(['eval', {str(exported)!r}, '--data', {str(tiny_shapes)!r}, '--limit', '2', '--threads', '1'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    # Its classes are other ones; that is found out after data and model are open.
    assert "have no name in common" in done.stderr


def test_running_needs_nothing_heavy(exported):
    code = (
        "import sys, numpy; from mobiledet import Detector\n"
        f"Detector({str(exported)!r}, threads=1)(numpy.full((70, 50, 3), 90, numpy.uint8))\n"
        "heavy = {'torch', 'torchvision', 'onnx', 'pnnx', 'pydantic', 'albumentations', 'openvino_telemetry', 'PIL'}\n"
        "print(*heavy & {name.partition('.')[0] for name in sys.modules if sys.modules[name] is not None})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("\n", "")
