"""Mean average precision of boxes, as COCO defines it, by torchmetrics with pycocotools."""

import contextlib
import io
import warnings

import numpy as np
import torch
from torch import Tensor

from export.detect import UNIT, Boxes

THRESHOLDS = 10  # 0.5, 0.55, ... 0.95


def measure(found: list[Boxes], truths: list[tuple[Tensor, Tensor]],
            classes: tuple[str, ...]) -> dict:
    """Average precision of the boxes `found` in each image, held against its truth.

    A truth is corners (n, 4), in pixels of the network's input, and classes (n,). Returns "map50",
    at an overlap of one half, and "map", the mean over 0.5 ... 0.95, of all classes; and "classes",
    of each one's name the same two. A class without boxes in any truth counts in no mean, and is
    left out.
    """
    with warnings.catch_warnings(action="ignore"):
        from torchmetrics.detection import MeanAveragePrecision
        metric = MeanAveragePrecision(backend="pycocotools", extended_summary=True)
        metric.warn_on_many_detections = False
    predictions = [{"boxes": torch.from_numpy(each.corners).float() / UNIT,
                    "scores": torch.from_numpy(each.scores).float(),
                    "labels": torch.from_numpy(each.classes)} for each in found]
    targets = [{"boxes": corners.float(), "labels": numbers} for corners, numbers in truths]
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        metric.update(predictions, targets)
        result = metric.compute()
    # Thresholds, recalls, classes that were seen, areas (all first), most boxes (100 last).
    precision = result["precision"].numpy()[:THRESHOLDS, :, :, 0, -1]
    by_class = {}
    for k, number in enumerate(result["classes"].reshape(-1).tolist()):
        one = precision[:, :, k]
        if (one >= 0).any():
            by_class[classes[number]] = {"map50": float(one[0].mean()), "map": float(one.mean())}
    return {name: float(np.mean([each[name] for each in by_class.values()])) if by_class else 0.0
            for name in ("map50", "map")} | {"classes": by_class}


def shown(found: dict) -> str:
    """What :func:`measure` found, in words."""
    each = ", ".join(f"{name} {one['map50']:.2%}" for name, one in found["classes"].items())
    return f"mAP@0.5 {found['map50']:.2%} ({each}), mAP@[.5:.95] {found['map']:.2%}"
