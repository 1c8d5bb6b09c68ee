"""Folders of images with boxes: what is read, what is refused; boxes stay on their things."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.checked import ConfigError
from export.detect import DetectConfig
from export.network import NetworkConfig

torch = pytest.importorskip("torch")
boxes = pytest.importorskip("model.boxes")

CLASSES = ("dark", "light")
BOX = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
XML = Path("voc/Annotations/one.xml")


def network(channels=3, height=24, width=32) -> NetworkConfig:
    return NetworkConfig(height=height, width=width, channels=channels, operations=[
        {"name": "a", "channels": 4, "weight_bits": 3, "code_bits": 3}])


def xml(*objects, size=(40, 60)) -> str:
    made = "".join(f"<object><name>{name}</name><difficult>1</difficult><bndbox>"
                   f"{BOX.format(*corners)}</bndbox></object>" for name, *corners in objects)
    return (f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height></size>"
            f"{made}</annotation>")


@pytest.fixture
def voc(tmp_path, monkeypatch):
    """A folder of one image of 60x40 pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEXLANE_BOXES", "voc")
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        Path("voc", name).mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("voc/JPEGImages/one.png")
    XML.write_text(xml(("dark", 0, 0, 60, 40), ("light", 6, 4, 12.5, 20)))
    Path("voc/ImageSets/Main/train.txt").write_text("one\n\n")
    return pixels


def load(**of):
    return boxes.load_samples(network(**of), CLASSES, "train")


def refused(said: str, where=str(XML)):
    with pytest.raises(ConfigError, match=said) as error:
        load()
    assert str(error.value).startswith(where) and len(str(error.value)) <= 300
    assert "\n" not in str(error.value)


def test_images_and_boxes_are_read(voc):
    sample, = load()
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0), voc)
    assert sample.corners.tolist() == [[0, 0, 60, 40], [6, 4, 12.5, 20]]
    assert sample.classes.tolist() == [0, 1]
    bright, = load(channels=1)
    exact = voc @ np.array([0.299, 0.587, 0.114])
    assert abs(bright.image[0].numpy() - exact).max() < 1.5


def test_a_whole_image_has_the_network_s_size(voc):
    sample = boxes.whole(load()[0], (20, 30))
    assert sample.image.shape == (3, 20, 30)
    assert sample.corners.tolist() == [[0, 0, 30, 20], [3, 2, 6.25, 10]]


def test_large_images_are_reduced_at_once(voc):
    sample, = load(height=10, width=20)
    assert sample.image.shape == (3, 20, 40)
    assert sample.corners[0].tolist() == [0, 0, 40, 20]
    torch.testing.assert_close(sample.corners[1], torch.tensor([4, 2, 25 / 3, 10]))


def test_boxes_without_an_area_are_dropped(voc):
    XML.write_text(xml(("dark", 5, 5, 5, 9), ("light", 1, 2, 3, 4), ("dark", 5, 5, 9, 5)))
    assert load()[0].corners.tolist() == [[1, 2, 3, 4]]
    XML.write_text("<annotation/>")
    assert load()[0].corners.shape == (0, 4)


@pytest.mark.parametrize("text, said", [
    ("", "cannot be read as XML: no element found"),
    ("<annotation>", "cannot be read as XML: no element found"),
    ("<annotation><a></b></annotation>", "cannot be read as XML: mismatched tag"),
    ("\0" * 9, "cannot be read as XML"),
    ('<?xml version="1.0" encoding="foo"?><annotation/>', "cannot be read as XML: unknown"),
    ("<a>&lol;</a>", "cannot be read as XML: undefined entity"),
    ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "must have no document type"),
    ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "must have no document type"),
    ("<a>" * 17 + "</a>" * 17, "must have elements 16 deep at most"),
    ("<annotation>" + "<object/>" * 1001 + "</annotation>", "must have at most 1000 objects"),
    (" " * (2**20 + 1), "must have at most 1048576 bytes"),
    (xml(size=(40, 61)), "width must be the image's, 60, not '61'"),
    (xml(size=(39, 60)), "height must be the image's, 40, not '39'"),
    (xml(("gray", 1, 2, 3, 4)), "object 1: name must be one of dark, light, not 'gray'"),
    (xml(("dark", 1, 2, 3, 4), ("", 1, 2, 3, 4)), "object 2: name must be one of .*, not ''"),
    ("<annotation><object/></annotation>", "object 1: name must be one of .*, not None"),
    ("<annotation><object><name>dark</name></object></annotation>",
     "object 1: xmin must be a number of pixels, not None"),
    (xml(("dark", "1e9", 2, 3, 4)), "object 1: xmin must be a number of pixels, not '1e9'"),
    (xml(("dark", "nan", 2, 3, 4)), "object 1: xmin must be a number of pixels, not 'nan'"),
    (xml(("dark", -1, 2, 3, 4)), "object 1: xmin must be a number of pixels, not '-1'"),
    (xml(("dark", "1<xmin>1</xmin>", 2, 3, 4)), "must be a number of pixels"),
    (xml(("dark", 1, 2, 3, "4</ymax><ymax>5")), "object 1: ymax must come once"),
    (xml(("dark", 1, 2, 61, 4)), "must lie in the image of 60x40 pixels, not be 1 2 61 4"),
    (xml(("dark", 1, 2, 3, 41)), "must lie in the image of 60x40 pixels, not be 1 2 3 41"),
    (xml(("dark", 4, 2, 3, 9)), "must lie in the image of 60x40 pixels, not be 4 2 3 9"),
    (xml(("dark", 3, 9, 4, 2)), "must lie in the image of 60x40 pixels, not be 3 9 4 2"),
    (xml(("x" * 999, 3, 9, 4, 2)), "name must be one of")])
def test_bad_annotations_are_refused_in_one_line(voc, text, said):
    XML.write_text(text)
    refused(said)


def test_a_bomb_takes_no_time(voc):
    entities = "".join(f'<!ENTITY e{k + 1} "{f"&e{k};" * 10}">' for k in range(12))
    XML.write_text(f'<!DOCTYPE a [<!ENTITY e0 "lol">{entities}]><annotation>&e12;</annotation>')
    refused("must have no document type")


def test_missing_files_are_refused(voc, monkeypatch):
    listed = Path("voc/ImageSets/Main/train.txt")
    XML.unlink()
    refused("cannot be read: No such file")
    for text, said in [("two\n", "there is no image voc/JPEGImages/two"),
                       ("", "must list 1 to 100000 images, not 0"),
                       ("../one", "must list names of images, not '../one'"),
                       (".one", "must list names of images, not '.one'"),
                       ("a" * 201, "must list names of images, not 'aaa")]:
        listed.write_text(text)
        refused(said, str(listed))
    listed.unlink()
    refused("cannot be read: No such file", str(listed))
    monkeypatch.delenv("HEXLANE_BOXES")
    refused("HEXLANE_BOXES must name a folder", "")
    monkeypatch.setenv("HEXLANE_BOXES", "voc")
    with pytest.raises(ConfigError, match="have 1 or 3 channels, wanted 2"):
        load(channels=2)


def test_a_damaged_image_is_refused(voc):
    path = Path("voc/JPEGImages/one.png")
    path.write_bytes(path.read_bytes()[:500])
    refused("cannot be read as an image", str(path))


def test_boxes_stay_on_their_things():
    """Squares of two gray levels: wherever an image shows one, its box is around it."""
    image = torch.full((1, 120, 160), 128, dtype=torch.uint8)
    corners = [[20, 16, 60, 56], [92, 60, 148, 100], [0, 90, 24, 120]]
    for level, (left, top, right, bottom) in zip((0, 255, 0), corners, strict=True):
        image[:, top:bottom, left:right] = level
    sample = boxes.Sample(image, torch.tensor(corners).float(), torch.tensor([0, 1, 0]))
    recipe = DetectConfig(classes=CLASSES, zoom=1.6, stretch=1.2, light=0.2)
    seen, sizes = 0, set()
    for k in range(60):
        generator = torch.Generator().manual_seed(k)
        made = boxes.augmented(sample, (60, 80), recipe, 128, generator)
        assert made.image.shape == (1, 60, 80) and made.image.dtype == torch.uint8
        assert (made.corners >= 0).all() and (made.corners <= torch.tensor([80, 60, 80, 60])).all()
        middle = made.image[0].float().median()
        levels = made.image[0].float() - middle
        inside = torch.zeros(60, 80, dtype=torch.bool)
        for (left, top, right, bottom), number in zip(made.corners.round().int().tolist(),
                                                      made.classes.tolist(), strict=True):
            part = levels[top + 1:bottom - 1, left + 1:right - 1]
            assert (part > 40).all() if number else (part < -40).all()
            inside[max(top - 1, 0):bottom + 1, max(left - 1, 0):right + 1] = True
            seen, sizes = seen + 1, sizes | {(right - left, bottom - top)}
        # What is left outside is less than a quarter of what was dropped.
        assert (levels[~inside].abs() > 40).sum() < 0.25 * 28 * 20 * 1.6**2
    assert seen > 100 and len(sizes) > 30


def test_what_is_hardly_visible_is_dropped():
    corners = torch.tensor([[-30.0, 0, 10, 10], [-31, 0, 10, 10], [15, 25, 25, 35], [-9, 0, -1, 9],
                            [21, 5, 29, 9], [0, 0, 20, 30]])
    seen, keep = boxes.visible(corners, (30, 20))
    assert keep.tolist() == [True, False, True, False, False, True]
    assert seen[keep].tolist() == [[0, 0, 10, 10], [15, 25, 20, 30], [0, 0, 20, 30]]
