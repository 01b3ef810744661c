"""Made-up ground truth and detections, and models scored on them, for tests of what evaluation makes of these."""

import numpy as np

from mobiledet.evaluation.metrics import score_detections
from mobiledet.evaluation.scoring import Score
from mobiledet.evaluation.thresholds import best_threshold
from mobiledet.runtime.card import ModelCard
from mobiledet.structures import ResizeRule

NAMES = ("cat", "dog", "owl")


def truth_of(annotations, images=1, size=(240, 320), names=NAMES):
    """A COCO dict: annotations as ``(image, class, xywh)``, with more keys as a dict behind; ids from 1."""
    rows = [
        {"id": number, "image_id": image, "category_id": kind, "bbox": list(box), "iscrowd": 0, **dict(*more)}
        for number, (image, kind, box, *more) in enumerate(annotations, 1)
    ]
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": size[0], "width": size[1]} for i in range(1, images + 1)
        ],
        "annotations": rows,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }


def results_of(detections):
    """COCO results of ``(image, class, xywh, score)``."""
    keys = ("image_id", "category_id", "bbox", "score")
    return [dict(zip(keys, (image, kind, list(box), score), strict=True)) for image, kind, box, score in detections]


def random_data(seed=0, images=12, names=NAMES, flags=True):
    """Ground truth with crowds and ignored objects, and detections of all kinds, near objects and elsewhere."""
    random = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(1, images + 1):
        for _ in range(random.integers(0, 7)):
            box = [*random.uniform(0, 150, 2), *random.uniform(8, 130, 2)]
            kind, flag = int(random.integers(1, len(names) + 1)), random.choice(["", "", "", "", "iscrowd", "ignore"])
            annotations.append((image, kind, box, {flag: 1} if flag and flags else {}))
            for _ in range(random.integers(0, 4)):
                moved = np.array(box) + random.normal(0, 6, 4)
                taken = kind if random.random() < 0.8 else int(random.integers(1, len(names) + 1))
                detections.append((image, taken, np.maximum(moved, 2).tolist(), float(random.random())))
        for _ in range(random.integers(0, 3)):
            box = [*random.uniform(0, 150, 2), *random.uniform(8, 130, 2)]
            detections.append((image, int(random.integers(1, len(names) + 1)), box, float(random.random())))
    return truth_of(annotations, images, names=names), results_of(detections)


class MadeUpDataset:
    """What the report asks of a data set, for a COCO dict whose images are plain gray."""

    annotation_file = "made-up.json"

    def __init__(self, truth):
        self.truth = truth

    def coco_json(self):
        return self.truth

    def fingerprint(self):
        return str(self.truth)

    def __len__(self):
        return len(self.truth["images"])

    def image_id(self, index):
        return self.truth["images"][index]["id"]

    def file_name(self, index):
        return self.truth["images"][index]["file_name"]

    def read(self, index):
        image = self.truth["images"][index]
        return np.full((image["height"], image["width"], 3), 120, np.uint8)


def made_up_score(
    truth, results, *, input_size=(240, 320), config=None, iou_threshold=0.6, threshold=None, brightness=120
):
    """A model that gave these results; without a threshold its is the one with the best F1."""
    names = tuple(category["name"] for category in truth["categories"])
    return Score(
        metrics=score_detections(truth, results),
        threshold=best_threshold(truth, results) if threshold is None else threshold,
        results=results,
        record={"model": {"file": "made-up.pt"}},
        dataset=MadeUpDataset(truth),
        card=ModelCard(names, (), ResizeRule(input_size), iou_threshold=iou_threshold, config=config or {}),
        brightness=brightness
        if isinstance(brightness, dict)
        else {image["id"]: brightness for image in truth["images"]},
    )
