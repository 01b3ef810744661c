"""How close the imported SSD comes to TensorFlow Lite running the same file on the same images.

    python benchmarks/tflite_parity.py path/to/ssd_mobilenet_v1.tflite path/to/coco/val2017 --images 20

Needs LiteRT (`pip install ai-edge-litert`). TensorFlow Lite rounds every activation to 8 bits, ours are float32: that
is what remains. Images are resized by OpenCV's bilinear filter for both.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.cli.common import run_and_exit


def main() -> None:
    """Parse arguments, run both, print the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tflite", type=Path)
    parser.add_argument("images_folder", type=Path, metavar="images")
    parser.add_argument("--images", type=int, default=20, help="how many, from the first by name")
    arguments = parser.parse_args()

    from mobiledet.data.images import find_images

    for line in compare(arguments.tflite, find_images([arguments.images_folder])[: arguments.images]):
        print(line)


def compare(tflite: Path, images: list[Path]) -> list[str]:
    """Differences of class logits, box encodings and detections, as lines."""
    import torch
    from ai_edge_litert.interpreter import Interpreter

    from mobiledet.config import config_from_plain
    from mobiledet.data.images import read_image
    from mobiledet.models.build import build_detector
    from mobiledet.preprocess import fit_image
    from mobiledet.weights.importing import import_weights
    from mobiledet.weights.tflite.contents import POSTPROCESS
    from mobiledet.weights.tflite.graph import read_tflite
    from mobiledet.weights.tflite.ssd import stored_anchors

    content = import_weights(tflite)
    model = build_detector(config_from_plain(content["config"]).model, weights_follow=True).eval()
    model.load_state_dict(content["model"])
    graph = read_tflite(tflite)
    end = next(op for op in graph.ops if op.kind == POSTPROCESS)
    logistic = graph.producer(end.inputs[1])
    assert logistic is not None
    interpreter = Interpreter(str(tflite), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    columns = [category["id"] for category in content["categories"]]
    logits: list[tuple[Any, Any]] = []
    deltas: list[tuple[Any, Any]] = []
    found = total = 0
    anchors = _pixels(stored_anchors(graph), model.network_size)
    head: Any = model.head
    for path in images:
        image, _ = fit_image(read_image(path), model.resize)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        theirs = _real(interpreter, logistic.inputs[0])[0][:, columns]
        their_deltas = _real(interpreter, end.inputs[0])[0][:, [1, 0, 3, 2]]
        with torch.no_grad():
            features = model.features(torch.from_numpy(image).permute(2, 0, 1)[None])
            ours, our_deltas, _ = head._predict(features, [model.network_size])
        logits.append((ours[0].numpy(), theirs))
        deltas.append((our_deltas[0].numpy(), their_deltas))
        hits, count = _agree(model, (ours[0], our_deltas[0]), (theirs, their_deltas), anchors)
        found, total = found + hits, total + count
    return [
        f"{len(images)} images, {tflite.name}",
        _differences("class logits", logits),
        _differences("box encodings", deltas),
        f"TensorFlow Lite's detections scoring 0.5 or more: {total}; found by ours at IoU 0.8, same class: "
        f"{found} ({100 * found / max(1, total):.1f} %)",
    ]


def _real(interpreter: Any, index: int) -> Any:
    values = interpreter.get_tensor(index).astype(np.float64)
    scale, zero = interpreter._get_tensor_details(index, 0)["quantization"]
    return (values - zero) * scale if scale else values


def _pixels(anchors: Any, size: tuple[int, int]) -> Any:
    """Centre y, x, height, width as shares -> xyxy in network pixels."""
    import torch

    y, x, h, w = (torch.from_numpy(column) for column in anchors.T)
    boxes = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=-1)
    return (boxes * torch.tensor([size[1], size[0]] * 2)).float()


def _agree(model: Any, ours: tuple[Any, Any], theirs: tuple[Any, Any], anchors: Any) -> tuple[int, int]:
    """How many of their confident detections have one of ours, of the same class, on the same spot."""
    import torch

    from mobiledet.ops.boxes import clip_boxes, decode_boxes, pairwise_iou
    from mobiledet.structures import Candidates

    def detect(logits: Any, deltas: Any) -> Any:
        boxes = decode_boxes(torch.as_tensor(deltas).float(), anchors)
        scores = torch.as_tensor(logits).float().sigmoid()
        return model.postprocess(Candidates(clip_boxes(boxes, model.network_size)[None], scores[None]))[0]

    mine, other = detect(*ours), detect(*theirs)
    confident = other["scores"] >= 0.5
    boxes, labels = other["boxes"][confident], other["labels"][confident]
    same = (pairwise_iou(boxes, mine["boxes"]) >= 0.8) & (labels[:, None] == mine["labels"][None])
    return int(same.any(dim=1).sum()), len(boxes)


def _differences(what: str, pairs: list[tuple[Any, Any]]) -> str:
    ours, theirs = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    away = np.abs(ours - theirs)
    return (
        f"{what}: mean difference {away.mean():.4f}, p99 {np.quantile(away, 0.99):.4f}, largest {away.max():.3f}, "
        f"correlation {np.corrcoef(ours, theirs)[0, 1]:.5f}"
    )


if __name__ == "__main__":
    run_and_exit(main)
