"""Boxes from the map of values that a network ends in, in exact integers.

For each cell of the map there are a score of each class and four box codes: how far the centre of
the box is from that of the cell, right and down, and how much wider and higher than the class's
usual box, its prior, it is, in logarithms. A cell whose score is the highest of the 3x3 cells
around it says where a box of that class is. Of boxes of one class that cover each other too much
the one of the lower score goes (non-maximum suppression).

Lengths are in sixteenths of a pixel of the network's input. The same code decodes what torch, the
golden model and the hardware give.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from export.checked import ConfigError, Frozen, Rate, Share, Steps, check_phases, count, parse
from export.network import MAX_SIDE, NetworkConfig

UNIT = 16  # parts of a pixel
OCTAVE = 32  # steps of a logarithm that double a size
CODES = 4  # of a box, behind the scores
# Of a logarithm -128 ... 127 the size, in 4096ths.
POWERS = np.round(4096 * 2.0 ** (np.arange(-128, 128) / OCTAVE)).astype(np.int64)
MOST = 100  # boxes of a class in an image, those of the highest scores
MAX_CLASSES = 64

ClassName = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f]*$")]
Classes = Annotated[tuple[ClassName, ...],
                    Field(strict=False, min_length=1, max_length=MAX_CLASSES, fail_fast=True)]
Size = count(UNIT * MAX_SIDE)


def _different(names: tuple[str, ...]):
    if len(set(names)) < len(names):
        raise ValueError(f"classes must differ, not {list(names)!r:.100}")


class DetectConfig(Frozen):
    """The recipe of a network that finds boxes; :mod:`model.detect` says what it does with it."""

    classes: Classes  # in the order of their scores; names as in the annotations
    nms: count(99) = 50  # percent that boxes of one class may have in common: intersection / union
    threshold: Share = 0.4  # probability from which on a box is shown; mAP looks at all
    steps: count(2**31) = 6000  # batches, in all
    float_steps: Steps = 1000  # of these, at first nothing is rounded
    code_steps: Steps = 1000  # behind them the codes are, but not the weights
    batch: count(4096) = 8
    learning_rate: Rate = 0.01  # peak
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    box_weight: Annotated[float, Field(ge=0)] = 2.0  # of the loss of boxes, beside that of scores
    zoom: Annotated[float, Field(ge=1, le=4)] = 1.3  # images are enlarged, or reduced, up to this
    stretch: Annotated[float, Field(ge=1, le=2)] = 1.1  # ... and one side more than the other
    light: Share = 0.25  # change of brightness and of contrast, up to this share
    upside_down: bool = True  # images are flipped that way too, not only left to right
    validate_every: count(2**31) = 500  # steps
    seed: Steps = 1

    @model_validator(mode="after")
    def _fits(self):
        _different(self.classes)
        check_phases(self, "float_steps", "code_steps")
        return self


class Decoding(Frozen):
    """What makes boxes of values; an artifact's record has it under "detection"."""

    classes: Classes
    priors: Annotated[tuple[tuple[Size, Size], ...], Field(strict=False)]  # width, height of each
    # What each box code is multiplied by, in 256ths: gives sixteenths of pixels for the centre,
    # steps of the logarithm for the size.
    gains: Annotated[tuple[count(2**20), ...],
                     Field(strict=False, min_length=CODES, max_length=CODES)]
    thresholds: Annotated[tuple[count(127, -128), ...], Field(strict=False)]  # scores to be shown
    nms: count(99) = 50

    @model_validator(mode="before")
    @classmethod
    def _from_lists(cls, values):
        """JSON has lists where this has pairs."""
        if isinstance(values, Mapping) and isinstance(values.get("priors"), list):
            values = {**values, "priors": tuple(
                tuple(each) if isinstance(each, list) else each for each in values["priors"])}
        return values

    @model_validator(mode="after")
    def _fits(self):
        _different(self.classes)
        for name in "priors", "thresholds":
            if len(getattr(self, name)) != len(self.classes):
                raise ValueError(f"{name} must be {len(self.classes)}, one for each class, "
                                 f"not {len(getattr(self, name))}")
        return self


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of an image, those of the highest scores first.

    `corners` are int64 [n, 4], left, top, right, bottom, in sixteenths of pixels; `classes` int64
    [n]; `scores` int64 [n].
    """

    corners: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    def shown(self, decoding: Decoding) -> "Boxes":
        """Those that reach their class's threshold."""
        keep = self.scores >= np.array(decoding.thresholds)[self.classes]
        return Boxes(self.corners[keep], self.classes[keep], self.scores[keep])


def cell_of(network: NetworkConfig, classes: int, where: str) -> int:
    """Side of a cell in pixels, of a network that finds boxes of so many classes.

    Raises
    ------
    ConfigError
        If its map does not have as many channels as that takes, or cells that are no squares.
    """
    if network.output != "map":
        raise ConfigError(f"{where}: a network that finds boxes must give a map of values, "
                          f"not {network.output}")
    shape = network.shapes[network.operations[-1].name]
    if shape.channels != classes + CODES:
        raise ConfigError(f"{where}: a network that finds boxes of {classes} classes must give "
                          f"{classes + CODES} channels, not {shape.channels}")
    side = network.width // shape.width
    if (side * shape.height, side * shape.width) != (network.height, network.width):
        raise ConfigError(f"{where}: the map of a network that finds boxes must divide "
                          f"{network.height}x{network.width} pixels into squares, "
                          f"not be {shape.height}x{shape.width}")
    return side


def decoding_of(record: dict, network: NetworkConfig, where: str) -> tuple[Decoding, int]:
    """What an artifact's record says of its boxes, and the side of a cell in pixels.

    Raises
    ------
    ConfigError
        One line, if it says nothing, nothing valid, or what does not fit the network.
    """
    if "detection" not in record:
        raise ConfigError(f"{where}: the record must have \"detection\", which says how boxes are "
                          f"made of values")
    decoding = parse(record["detection"], f"{where}: detection", Decoding)
    return decoding, cell_of(network, len(decoding.classes), where)


def decode(values: np.ndarray, decoding: Decoding, cell: int) -> Boxes:
    """The boxes of one image, of all scores, from a map int8 [classes + 4, H, W].

    `cell` is the side of a place in pixels.
    """
    classes = len(decoding.classes)
    if values.dtype != np.int8 or values.ndim != 3 or len(values) != classes + CODES:
        raise ConfigError(f"values must be int8 [{classes + CODES}, H, W], "
                          f"not {values.dtype} {list(values.shape)}")
    found = []
    for number, peaks in enumerate(_peaks(values[:classes])):
        at = np.flatnonzero(peaks)
        scores = values[number].ravel()[at].astype(np.int64)
        best = np.argsort(-scores, kind="stable")[:MOST]  # of equal ones the first in the raster
        at, scores = at[best], scores[best]
        corners = _corners(values, at, decoding.priors[number], decoding.gains, cell)
        keep = _suppressed(corners, decoding.nms)
        found.append((corners[keep], np.full(keep.sum(), number), scores[keep]))
    corners, numbers, scores = map(np.concatenate, zip(*found, strict=True))
    order = np.argsort(-scores, kind="stable")
    return Boxes(corners[order], numbers[order], scores[order])


def _peaks(scores: np.ndarray) -> np.ndarray:
    """Where a score [K, H, W] is the highest of 3x3; of equal ones the first in the raster is."""
    height, width = scores.shape[1:]
    padded = np.pad(scores.astype(np.int16), ((0, 0), (1, 1), (1, 1)), constant_values=-129)
    peaks = np.ones(scores.shape, bool)
    for dy, dx in ((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx):
        other = padded[:, 1 + dy:1 + dy + height, 1 + dx:1 + dx + width]
        peaks &= scores > other if (dy, dx) < (0, 0) else scores >= other
    return peaks


def _corners(values: np.ndarray, at: np.ndarray, prior: tuple[int, int], gains: tuple[int, ...],
             cell: int) -> np.ndarray:
    """Boxes [n, 4] of the cells `at`, cut off at the edges of the image."""
    height, width = values.shape[1:]
    codes = values[-CODES:].reshape(CODES, -1)[:, at].astype(np.int64)
    codes = codes * np.array(gains)[:, None] >> 8
    size = np.array(prior)[:, None] * POWERS[np.clip(codes[2:], -128, 127) + 128] >> 12
    size = np.maximum(size, 1)
    centre = (2 * np.stack([at % width, at // width]) + 1) * cell * UNIT // 2 + codes[:2]
    low = centre - size // 2
    limit = np.array([width, height])[:, None] * cell * UNIT
    return np.concatenate([np.clip(low, 0, limit), np.clip(low + size, 0, limit)]).T


def _suppressed(corners: np.ndarray, percent: int) -> np.ndarray:
    """Which boxes [n, 4] stay, best first: none that has too much in common with one before."""
    low = np.maximum(corners[:, None, :2], corners[:, :2])
    high = np.minimum(corners[:, None, 2:], corners[:, 2:])
    common = (high - low).clip(0).prod(2)
    area = (corners[:, 2:] - corners[:, :2]).prod(1)
    alike = 100 * common > percent * (area[:, None] + area - common)
    keep = area > 0  # a box beside the image is none
    for k in range(len(corners)):
        if keep[k]:
            keep[k + 1:] &= ~alike[k, k + 1:]
    return keep
