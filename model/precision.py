"""Mean average precision of boxes as COCO defines it, by its authors' pycocotools."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from export.detect import UNIT, Boxes


def measure(found: list[Boxes], truths: list[tuple[Tensor, Tensor]],
            classes: tuple[str, ...]) -> dict:
    """Average precision of the boxes `found` in each image, held against its truth.

    A truth is corners (n, 4), in pixels of the network's input, and classes (n,). Returns "map50",
    at an overlap of one half, and "map", the mean over 0.5, 0.55, ... 0.95, of all classes; and
    "classes", of each one's name the same two. A class without boxes in any truth is left out.
    """
    numbers = range(len(classes))
    annotations = [{"image_id": k, "category_id": number, "bbox": _box(corners), "iscrowd": 0,
                    "area": (corners[2] - corners[0]) * (corners[3] - corners[1])}
                   for k, (all_corners, all_numbers) in enumerate(truths)
                   for corners, number in zip(all_corners.tolist(), all_numbers.tolist(),
                                              strict=True)]
    results = [{"image_id": k, "category_id": number, "bbox": _box(corners), "score": score}
               for k, boxes in enumerate(found)
               for corners, number, score in zip((boxes.corners / UNIT).tolist(),
                                                 boxes.classes.tolist(), boxes.scores.tolist(),
                                                 strict=True)]
    by_class = {}
    if annotations:
        with contextlib.redirect_stdout(io.StringIO()):
            precision = _precision(annotations, results, len(truths), list(numbers))
        for number, name in enumerate(classes):
            each = precision[:, :, number]
            if (each >= 0).any():
                by_class[name] = {"map50": float(each[0].mean()), "map": float(each.mean())}
    return {kind: float(np.mean([each[kind] for each in by_class.values()])) if by_class else 0.0
            for kind in ("map50", "map")} | {"classes": by_class}


def _box(corners: list[float]) -> list[float]:
    left, top, right, bottom = corners
    return [left, top, right - left, bottom - top]


def _precision(annotations: list[dict], results: list[dict], images: int,
               numbers: list[int]) -> np.ndarray:
    """Precisions [overlap, recall, class], of boxes of all sizes; -1 where there is no truth."""
    truth = COCO()
    truth.dataset = {"info": {}, "images": [{"id": k} for k in range(images)],
                     "categories": [{"id": number} for number in numbers],
                     # An annotation of number 0 would count as none.
                     "annotations": [{"id": k + 1} | each for k, each in enumerate(annotations)]}
    truth.createIndex()
    if not results:
        seen = {each["category_id"] for each in annotations}
        return np.where(np.isin(numbers, list(seen)), 0.0, -1.0) * np.ones((10, 101, 1))
    evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, -1]  # of all areas, at most 100 boxes


def shown(found: dict) -> str:
    """What :func:`measure` found, in words."""
    each = ", ".join(f"{name} {one['map50']:.2%}" for name, one in found["classes"].items())
    return f"mAP@0.5 {found['map50']:.2%} ({each}), mAP@[.5:.95] {found['map']:.2%}"
