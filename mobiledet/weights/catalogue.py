"""Weights that can be named instead of given as a file: what they are, where they come from, under which licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mobiledet.errors import ModelFileError
from mobiledet.utils.addresses import is_address, without_user
from mobiledet.utils.files import nearby
from mobiledet.utils.text import did_you_mean

if TYPE_CHECKING:
    from mobiledet.config import ModelConfig


@dataclass(frozen=True)
class PretrainedSource:
    """A file of another project that :mod:`mobiledet.weights.importing` can read.

    Attributes:
        name: What users call it.
        alpha: Width multiplier; what is read is taken from the file, this is for the list.
        url: Where the file, or the archive with it, is.
        file_name: The weights file, as kept in the cache.
        megabytes: About how much is downloaded.
        published: Accuracy as published, and by whom.
        what: A whole detector, or an ImageNet backbone.
        input_size: Side of the square input it was trained at, in pixels.
        licence: As the publisher states it.
        measured: What we measured ourselves, or that we didn't.
        archive_member: Name of the file inside the archive; None when the address is the file itself.
        second_best: File name of the same weights in another form, used where only that is on this machine.
        sha256: Of the file that ``measured`` is about. Other conversions of the same weights differ in bytes and
            not in values, so another file is used as well, with a warning.
        threshold: Of a detector: the display threshold (where F1 is best, measured on the same images).
    """

    name: str
    alpha: float
    url: str
    file_name: str
    megabytes: float
    published: str
    what: Literal["detector", "backbone"] = "backbone"
    input_size: int = 224
    licence: str = "Apache-2.0"
    measured: str = "not measured"
    archive_member: str | None = None
    second_best: str | None = None
    sha256: str | None = None
    threshold: float | None = None

    @property
    def most_bytes(self) -> int:
        """Twice what is downloaded: publishers give neither size nor checksum, so the content is checked as well."""
        return int(2e6 * self.megabytes)


def _google(alpha: str, megabytes: float, accuracy: str) -> PretrainedSource:
    name = f"mobilenet_v1_{alpha}_224"
    published = f"ImageNet top-1 {accuracy} % (TensorFlow's table of hosted models)"
    url = f"http://download.tensorflow.org/models/mobilenet_v1_2018_02_22/{name}.tgz"
    # The archive holds the graph before batch-norm was folded, too; as a start both are the same.
    file, frozen = f"{name}.tflite", f"{name}_frozen.pb"
    return PretrainedSource(
        name, float(alpha), url, file, megabytes, published, archive_member=file, second_best=frozen
    )


def _timm(width: str, megabytes: float, accuracy: str) -> PretrainedSource:
    name = f"mobilenetv1_{width}"
    url = f"https://huggingface.co/timm/{name}.ra4_e3600_r224_in1k/resolve/main/model.safetensors"
    file, published = f"{name}.ra4_e3600_r224_in1k.safetensors", f"ImageNet top-1 {accuracy} % (timm)"
    return PretrainedSource(name, int(width) / 100, url, file, megabytes, published)


SOURCES: tuple[PretrainedSource, ...] = (
    PretrainedSource(
        "ssd_mobilenet_v1_075_coco",
        alpha=0.75,
        url="https://raw.githubusercontent.com/apivovarov/ssd-tflite/master/"
        "ssd_mobilenet_v1_0.75_depth_quantized_300x300_coco14_sync_2018_07_18.tflite",
        file_name="ssd_mobilenet_v1_0.75_300_coco_quant.tflite",
        megabytes=4.2,
        published="COCO mAP 16 (TensorFlow detection model zoo)",
        what="detector",
        input_size=300,
        measured="AP 20.2 on 188 images picked from COCO val2017",
        sha256="e4b118e5e4531945de2e659742c7c590f7536f8d0ed26d135abcfe83b4779d13",
        threshold=0.49,
    ),
    _timm("100", 17.0, "75.4"),
    _timm("125", 25.3, "76.9"),
    _google("1.0", 94.0, "71.0"),
    _google("0.75", 58.0, "68.3"),
    _google("0.5", 30.0, "63.2"),
    _google("0.25", 11.0, "49.7"),
)


def find_source(name: str) -> PretrainedSource | None:
    """The weights of that name, if there are any."""
    return next((source for source in SOURCES if source.name == name), None)


def with_known_width(model: ModelConfig) -> ModelConfig:
    """A model config with the width of the weights it starts from, where their name tells it without fetching them."""
    source = find_source(model.init or "")
    if source is None or "alpha" in model.backbone.model_fields_set:
        return model
    return model.model_copy(update={"backbone": model.backbone.model_copy(update={"alpha": source.alpha})})


def suggest_name(name: str, otherwise: str = "") -> str:
    """``"did you mean 'x'?"`` for a name that is probably a typo, else ``otherwise``."""
    return did_you_mean(name, [source.name for source in SOURCES], otherwise=otherwise)


def no_such_model(model: str) -> ModelFileError:
    """The error for what is neither a file nor a name."""
    if is_address(model):
        return ModelFileError(f"{without_user(model)} is an address; download the model, and name the file")
    path = Path(model)
    if path.suffix or path.parent.name:
        return ModelFileError(f"no model {model!r}{nearby(path)}")
    return ModelFileError(f"no model {model!r}: {suggest_name(model, 'name an exported file or folder')}")
