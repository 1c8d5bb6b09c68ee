"""Boxes from a map of values, against plain loops; what says how they are made is checked."""

import numpy as np
import pytest

from export.checked import ConfigError
from export.config import parse_config
from export.detect import Boxes, Decoding, cell_of, decode, decoding_of
from export.detect import _suppressed as suppressed
from export.network import NetworkConfig

GAINS = (300, 500, 64, 90)
DECODING = {"classes": ("a", "b"), "priors": ((640, 320), (160, 480)), "gains": GAINS,
            "thresholds": (10, -20), "nms": 50}
CELL = 8


def decoding(**changes) -> Decoding:
    return Decoding(**DECODING | changes)


def network(height=16, width=24, channels=6, pool=True, **changes) -> NetworkConfig:
    return NetworkConfig(height=height, width=width, channels=1, fold=4, operations=[
        {"name": "a", "channels": 4, "weight_bits": 3, "code_bits": 3, "pool": pool},
        {"name": "v", "kind": "map", "channels": channels, "weight_bits": 3}], **changes)


def by_loops(values: np.ndarray, how: Decoding) -> list[tuple]:
    """(score, class, corners) of all boxes, best first, in Python's integers."""
    found = []
    _, height, width = values.shape
    for number, (prior, scores) in enumerate(zip(how.priors, values.tolist(), strict=False)):
        boxes = []
        for y in range(height):
            for x in range(width):
                around = [((v, u) < (y, x), scores[v][u]) for v in range(y - 1, y + 2)
                          for u in range(x - 1, x + 2)
                          if (v, u) != (y, x) and 0 <= v < height and 0 <= u < width]
                if any(other > scores[y][x] or (other == scores[y][x] and first)
                       for first, other in around):
                    continue
                codes = [int(c) * g >> 8 for c, g in zip(values[-4:, y, x], how.gains, strict=True)]
                corners = []
                for at, sides, code, octaves, length in zip(
                        (x, y), (width, height), codes[:2], codes[2:], prior, strict=True):
                    octaves = min(max(octaves, -128), 127)
                    size = max(length * round(4096 * 2 ** (octaves / 32)) // 4096, 1)
                    low = at * 8 * 16 + 64 + code - size // 2
                    corners.append([min(max(edge, 0), sides * 8 * 16)
                                    for edge in (low, low + size)])
                (left, right), (top, bottom) = corners
                boxes.append((-scores[y][x], y, x, (left, top, right, bottom)))
        kept = []
        for score, _, _, box in sorted(boxes)[:100]:
            if area(box) and all(100 * area(common(box, other))
                                 <= how.nms * (area(box) + area(other) - area(common(box, other)))
                                 for _, _, other in kept):
                kept.append((-score, number, box))
        found += kept
    return sorted(found, key=lambda each: (-each[0], each[1]))


def common(one, other):
    return (max(one[0], other[0]), max(one[1], other[1]),
            min(one[2], other[2]), min(one[3], other[3]))


def area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def as_list(boxes: Boxes) -> list[tuple]:
    return [(score, number, tuple(corners)) for score, number, corners in
            zip(boxes.scores.tolist(), boxes.classes.tolist(), boxes.corners.tolist(), strict=True)]


@pytest.mark.parametrize("seed", range(20))
def test_boxes_are_those_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 12, 2)
    peak = rng.choice([2, 20, 128])  # few different scores, or many
    values = rng.integers(-peak, peak, (6, height, width)).astype(np.int8)
    values[2:] = rng.integers(-128, 128, (4, height, width)) // rng.choice([1, 4])
    how = decoding(nms=int(rng.integers(1, 100)), gains=tuple(rng.integers(1, 900, 4).tolist()))
    assert as_list(decode(values, how, CELL)) == by_loops(values, how)


def test_a_hundred_boxes_of_a_class_are_kept():
    values = np.full((6, 30, 30), -128, np.int8)
    values[0, ::2, ::2] = np.arange(225).reshape(15, 15) % 100  # 225 peaks
    how = decoding(priors=((16, 16), (16, 16)), gains=(1, 1, 1, 1))
    found = decode(values, how, CELL)
    best = sorted((values[0, ::2, ::2].ravel().tolist()), reverse=True)[:100]
    assert found.scores[found.classes == 0].tolist() == best
    assert (found.classes == 1).sum() == 1  # all equal: the first cell alone


def test_one_box_by_hand():
    values = np.full((6, 3, 4), -128, np.int8)
    values[0, 1, 2] = 50
    values[2:, 1, 2] = 64, -32, 32, -64
    found = decode(values, decoding(gains=(256, 256, 256, 256)), CELL)
    # Centre (2.5, 1.5) cells of 128 and 64, -32 more; 640 an octave wider, 320 two octaves lower.
    assert found.corners[0].tolist() == [0, 192 - 32 - 40, 4 * 128, 192 - 32 + 40]
    assert (found.scores[0], found.classes[0]) == (50, 0)


def test_extreme_values_stay_in_the_image():
    for value in (-128, 127):
        values = np.full((6, 5, 7), value, np.int8)
        found = decode(values, decoding(gains=(2**20,) * 4), CELL)
        assert as_list(found) == by_loops(values, decoding(gains=(2**20,) * 4))
        assert (found.corners >= 0).all() and (found.corners[:, 2] <= 7 * 8 * 16).all()


def test_boxes_that_are_shown_reach_their_threshold():
    boxes = Boxes(np.zeros((4, 4), np.int64), np.array([0, 0, 1, 1]), np.array([10, 9, -20, -21]))
    assert boxes.shown(decoding()).scores.tolist() == [10, -20]


@pytest.mark.parametrize("values", [np.zeros((6, 2, 2), np.int16), np.zeros((5, 2, 2), np.int8),
                                    np.zeros((6, 2), np.int8)])
def test_other_arrays_are_refused(values):
    with pytest.raises(ConfigError, match=r"^values must be int8 \[6, H, W\], not "):
        decode(values, decoding(), CELL)


def test_a_record_says_how_boxes_are_made():
    import json
    record = json.loads(json.dumps({"detection": decoding().model_dump()}))
    assert decoding_of(record, network(), "x") == (decoding(), 8)


@pytest.mark.parametrize("changes, said", [
    ({"classes": ["a"]}, "priors must be 1, one for each class, not 2"),
    ({"classes": ["a", "a"]}, "classes must differ, not"),
    ({"classes": []}, "classes"),
    ({"classes": ["a", "b\n"]}, "classes"),
    ({"thresholds": [1]}, "thresholds must be 2, one for each class, not 1"),
    ({"thresholds": [1, 128]}, "thresholds"),
    ({"priors": [[1, 2], [3]]}, "priors"),
    ({"priors": [[1, 2], [3, 0]]}, "priors"),
    ({"priors": [[1, 2], 3]}, "priors"),
    ({"gains": [1, 2, 3]}, "gains"),
    ({"gains": [1, 2, 3, 0]}, "gains"),
    ({"gains": [1, 2, 3, 2**20 + 1]}, "gains"),
    ({"gains": [1, 2, 3, 4.5]}, "gains"),
    ({"nms": 0}, "nms"), ({"nms": 100}, "nms"), ({"more": 1}, "more")])
def test_a_record_that_cannot_be_is_refused_in_one_line(changes, said):
    record = {"detection": decoding().model_dump(mode="json") | changes}
    with pytest.raises(ConfigError, match=rf"^x: detection: .*{said}") as error:
        decoding_of(record, network(), "x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("record", [{"detection": []}, {"detection": None}, {}])
def test_a_record_without_boxes_is_refused(record):
    with pytest.raises(ConfigError, match=r"^x: "):
        decoding_of(record, network(), "x")


def test_a_network_that_cannot_give_boxes_is_refused():
    codes = NetworkConfig(height=8, width=8, channels=1, operations=[
        {"name": "a", "channels": 6, "weight_bits": 3, "code_bits": 3}])
    for each, classes, said in [
            (codes, 2, "must give a map of values, not codes"),
            (network(channels=7), 2, "must give 6 channels, not 7"),
            (network(height=20), 2, "must divide 20x24 pixels into squares, not be 2x3")]:
        with pytest.raises(ConfigError, match=said):
            cell_of(each, classes, "x")
    assert cell_of(network(pool=False), 2, "x") == 4


@pytest.mark.parametrize("recipe, said", [
    ({"classes": ["a", "b", "c"]}, "detect: a network that finds boxes of 3 classes must give 7"),
    ({"classes": ["a", "a"]}, "classes must differ"),
    ({"classes": "ab"}, "detect.classes"),
    ({}, "detect.classes"),
    ({"classes": ["a", "b"], "steps": 10, "float_steps": 6, "code_steps": 4},
     "must be fewer than the 10 steps together, not 10"),
    ({"classes": ["a", "b"], "zoom": 0.5}, "detect.zoom"),
    ({"classes": ["a", "b"], "light": 1.5}, "detect.light")])
def test_a_recipe_that_cannot_be_is_refused(recipe, said):
    values = {"name": "x", "network": network(), "array": {"rows": 4, "columns": 4, "words": 2}}
    assert parse_config(values | {"detect": {"classes": ["a", "b"]}}).detect.classes == ("a", "b")
    with pytest.raises(ConfigError, match=said):
        parse_config(values | {"detect": recipe})


def test_boxes_that_have_exactly_the_percent_in_common_stay():
    corners = np.array([[0, 0, 3, 1], [1, 0, 4, 1]])  # 2 of 4
    assert suppressed(corners, 50).tolist() == [True, True]
    assert suppressed(corners, 49).tolist() == [True, False]
