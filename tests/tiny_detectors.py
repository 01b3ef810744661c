"""Detectors with random weights that find things, for comparing runtimes with PyTorch."""

import numpy as np
import torch

from mobiledet.config import (
    BackboneConfig,
    FasterRCNNConfig,
    FPNConfig,
    ModelConfig,
    PostprocessConfig,
    SSDConfig,
    SSDLiteConfig,
)
from mobiledet.models.build import build_detector
from mobiledet.runtime.card import ModelCard

SIZE = (64, 96)
NAMES = ("cat", 'a "dog" <&> ü', "hat")
HEADS = {
    "sigmoid": SSDConfig(scores="sigmoid"),
    "softmax": SSDConfig(scores="softmax"),
    "ssdlite": SSDLiteConfig(),
    "fine": SSDConfig(fine_map=True),
    "fpn": FPNConfig(),
    "faster_rcnn": FasterRCNNConfig(proposals=20, crop_size=4, rpn="depthwise"),
}


def tiny_detector(head, *, padding="symmetric", num_classes=3, vote_iou=None, size=SIZE):
    """A detector and its card; ``head`` is one of `HEADS` by its name, or a head's settings."""
    config = ModelConfig(
        num_classes=num_classes,
        backbone=BackboneConfig(alpha=0.25, padding=padding),
        input_size=size,
        head=HEADS[head] if isinstance(head, str) else head,
        postprocess=PostprocessConfig(vote_iou=vote_iou),
    )
    torch.manual_seed(1)
    model = build_detector(config).eval()
    with torch.no_grad():
        # Norms that know their input let the image through; fresh predictors all but ignore what arrives.
        for norm in (layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)):
            norm.train().momentum = 1.0
        model.candidates(torch.from_numpy(make_images(4)).permute(0, 3, 1, 2))
        for name, parameter in model.eval().head.named_parameters():
            if "predictor" in name and name.endswith("weight"):
                parameter.normal_(0, 0.15)
    card = ModelCard(
        names=NAMES if num_classes == 3 else tuple(f"class {k}" for k in range(num_classes)),
        category_ids=(1, 5, 9) if num_classes == 3 else tuple(range(1, num_classes + 1)),
        resize=model.resize,
        max_detections=model.postprocess.max_detections,
        head=config.head.kind,
        config={"model": config.model_dump(mode="json")},
    )
    return model, card


def make_images(count):
    """``(count, 64, 96, 3)`` uint8."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 12, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def expected(model, images, score_threshold=0.01, iou_threshold=0.6):
    """What PyTorch finds: boxes, scores and labels, each with a leading batch."""
    with torch.no_grad():
        candidates = model.candidates(torch.from_numpy(images).permute(0, 3, 1, 2))
        return [part.numpy() for part in model.postprocess.fixed(candidates, score_threshold, iou_threshold)]


def assert_same(found, wanted, *, box=0.01, score=1e-4):
    """The same detections in every image, up to rounding."""
    boxes, scores, labels = wanted
    assert found.scores.shape == scores.shape
    assert found.boxes.shape == boxes.shape
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
    np.testing.assert_allclose(found.scores, scores, atol=score)
    for image in range(len(scores)):
        count = int((scores[image] > 0).sum())
        assert count > 5, "a comparison of nothing"
        for index in range(count):
            near = np.abs(found.scores[image] - scores[image, index]) <= score
            near &= np.abs(found.boxes[image] - boxes[image, index]).max(axis=1) <= box
            assert (found.labels[image, near] == labels[image, index]).any(), (image, index)


def spoil(path, how):
    """Damage a file of a model's folder: ``"cut"``, ``"changed"`` or ``"gone"``; returns what will be said of it."""
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
        return "missing; copy or export"
    path.write_bytes(content[: len(content) // 2] if how == "cut" else content[:-400] + b"\x07" + content[-399:])
    return "damaged, its checksum doesn't match"
