"""Images with boxes, to train detection on: any folder in the format of Pascal VOC.

`HEXLANE_BOXES` names it. `ImageSets/Main/{train,val,test}.txt` list the images' names, one in a
line; `Annotations/NAME.xml` has the boxes of `JPEGImages/NAME.jpg` (or `.jpeg`, `.png`). Corners
are pixels from the left and from the top, from 0 to the image's width and height. Boxes without
an area are dropped, flags such as `difficult` do not count.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

import torch
import torch.nn.functional as F
from torch import Tensor

from export.checked import ConfigError
from export.detect import DetectConfig
from export.file import read_whole
from export.network import NetworkConfig
from model.data import FORMATS, read_picture

SPLITS = {"train": "train", "validation": "val", "test": "test"}
FILE_LIMIT = 2**20  # bytes of a list, or of an annotation
MOST_BOXES, MOST_IMAGES = 1000, 100_000
DEPTH = 16  # elements in each other
CORNERS = "xmin", "ymin", "xmax", "ymax"
NAME = re.compile(r"[^/\\\x00]{1,200}")
INTEGER = re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII)  # some tools write fractions
LEAST_VISIBLE = 0.25  # of a box, that it stays in a cut-out
LARGEST = 2  # times the network's sides: images that are larger are reduced to this


@dataclass(frozen=True, eq=False)
class Sample:
    """An image uint8 (channels, height, width), and its boxes in its own pixels.

    `corners` are float (n, 4): left, top, right, bottom; `classes` int64 (n,).
    """

    image: Tensor
    corners: Tensor
    classes: Tensor


class _Reader:
    """The objects of an annotation, and the size that it states, without building a tree."""

    def __init__(self):
        self.path, self.text = [], ""
        self.size, self.objects = {}, []

    def start(self, name: str, _):
        self.path.append(name)
        self.text = ""
        if len(self.path) > DEPTH:
            raise ValueError(f"must have elements {DEPTH} deep at most, not more")
        if self.path == ["annotation", "object"]:
            self.objects.append({})
            if len(self.objects) > MOST_BOXES:
                raise ValueError(f"must have at most {MOST_BOXES} objects, not more")

    def characters(self, text: str):
        self.text = (self.text + text)[:200]

    def end(self, name: str):
        text = self.text.strip()
        match self.path:
            case ["annotation", "size", "width" | "height"]:
                self.size[name] = text
            case ["annotation", "object", "name"] | ["annotation", "object", "bndbox", _]:
                if name in self.objects[-1]:
                    raise ValueError(f"object {len(self.objects)}: {name} must come once")
                self.objects[-1][name] = text
        self.path.pop()
        self.text = ""

    def doctype(self, *_):
        raise ValueError("must have no document type: entities are not expanded")


def read_annotation(path: Path, classes: tuple[str, ...], size: tuple[int, int]
                    ) -> tuple[list[list[float]], list[int]]:
    """Corners and classes of the boxes of an image of (height, width) pixels.

    Raises
    ------
    ConfigError
        One line that names the file: no XML, or a document type; another size than the image's; a
        class that is not among `classes`; corners that are missing, or outside the image.
    """
    reader, parser = _Reader(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.characters
    parser.StartDoctypeDeclHandler = reader.doctype
    try:
        parser.Parse(read_whole(path, FILE_LIMIT), True)
        _check_size(reader.size, size)
        found = [_box(k + 1, each, classes, size) for k, each in enumerate(reader.objects)]
    except (expat.ExpatError, LookupError) as error:  # of an encoding that is not known, too
        raise ConfigError(f"{path}: cannot be read as XML: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    found = [(corners, number) for corners, number in found
             if corners[0] < corners[2] and corners[1] < corners[3]]
    return [corners for corners, _ in found], [number for _, number in found]


def _check_size(stated: dict[str, str], size: tuple[int, int]):
    """If the annotation states a size, it must be the image's: or its boxes lie elsewhere."""
    for name, wanted in zip(("height", "width"), size, strict=True):
        if name in stated and stated[name] != str(wanted):
            raise ValueError(f"{name} must be the image's, {wanted}, not {stated[name]!r:.60}")


def _box(number: int, values: dict[str, str], classes: tuple[str, ...],
         size: tuple[int, int]) -> tuple[list[float], int]:
    name = values.get("name")
    if name not in classes:
        raise ValueError(f"object {number}: name must be one of {', '.join(classes):.100}, "
                         f"not {name!r:.60}")
    for corner in CORNERS:
        if not INTEGER.fullmatch(values.get(corner, "")):
            raise ValueError(f"object {number}: {corner} must be a number of pixels, "
                             f"not {values.get(corner)!r:.60}")
    left, top, right, bottom = corners = [float(values[corner]) for corner in CORNERS]
    height, width = size
    if not (left <= right <= width and top <= bottom <= height):
        raise ValueError(f"object {number}: the box must lie in the image of {width}x{height} "
                         f"pixels, not be {left:g} {top:g} {right:g} {bottom:g}")
    return corners, classes.index(name)


def load_samples(network: NetworkConfig, classes: tuple[str, ...], split: str,
                 limit: int | None = None) -> list[Sample]:
    """The images of `train`, `validation` or `test`, in the order of their list.

    They are gray if the network has one channel, and reduced to twice its size if they are larger.

    Raises
    ------
    ConfigError
        One line, with the file, if there are none, or one is damaged or missing.
    """
    named = os.environ.get("HEXLANE_BOXES")
    if not named:
        raise ConfigError("HEXLANE_BOXES must name a folder of images with boxes, not nothing")
    if network.channels not in (1, 3):
        raise ConfigError(f"images with boxes have 1 or 3 channels, wanted {network.channels}")
    listed = Path(named) / "ImageSets" / "Main" / f"{SPLITS[split]}.txt"
    lines = read_whole(listed, FILE_LIMIT).decode("utf-8", "replace").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not 1 <= len(names) <= MOST_IMAGES:
        raise ConfigError(f"{listed}: must list 1 to {MOST_IMAGES} images, not {len(names)}")
    return [_sample(Path(named), listed, name, network, classes) for name in names[:limit]]


def _sample(folder: Path, listed: Path, name: str, network: NetworkConfig,
            classes: tuple[str, ...]) -> Sample:
    if not NAME.fullmatch(name) or name.startswith("."):
        raise ConfigError(f"{listed}: must list names of images, not {name!r:.60}")
    files = [folder / "JPEGImages" / f"{name}{ending}" for ending in FORMATS]
    file = next((path for path in files if path.is_file()), None)
    if file is None:
        raise ConfigError(f"{listed}: there is no image {folder / 'JPEGImages' / name}, "
                          f"of {', '.join(FORMATS)}")
    image = torch.from_numpy(read_picture(file).transpose(2, 0, 1).copy())
    if network.channels == 1:
        image = gray(image)
    height, width = image.shape[1:]
    corners, numbers = read_annotation(folder / "Annotations" / f"{name}.xml", classes,
                                       (height, width))
    corners = torch.tensor(corners, dtype=torch.float32).view(-1, 4)
    most = LARGEST * network.height, LARGEST * network.width
    if height > most[0] or width > most[1]:
        reduced = min(height, most[0]), min(width, most[1])
        image = resize(image, reduced)
        corners = corners * torch.tensor([reduced[1] / width, reduced[0] / height] * 2)
    return Sample(image, corners, torch.tensor(numbers, dtype=torch.int64))


def gray(image: Tensor) -> Tensor:
    """Brightness (1, h, w) of an image uint8 (3, h, w): shares of 77, 150 and 29 in 256."""
    red, green, blue = image.int()
    return ((77 * red + 150 * green + 29 * blue + 128) >> 8).to(torch.uint8)[None]


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The whole image uint8 (c, h, w), stretched to `size` (height, width)."""
    if image.shape[1:] == size:
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True,
                         align_corners=False)[0]


def whole(sample: Sample, size: tuple[int, int]) -> Sample:
    """The sample in the network's size (height, width)."""
    height, width = sample.image.shape[1:]
    scale = torch.tensor([size[1] / width, size[0] / height] * 2)
    return Sample(resize(sample.image, size), sample.corners * scale, sample.classes)


def augmented(sample: Sample, size: tuple[int, int], recipe: DetectConfig, pad: int,
              generator: torch.Generator) -> Sample:
    """A random cut-out of the sample in the network's size, flipped and in another light.

    It may reach over the edges, where `pad` lies. Boxes are cut off where it ends; those of which
    little is left are dropped.
    """
    def draw(least: float, most: float) -> float:
        return least + (most - least) * torch.rand((), generator=generator).item()

    zoom = recipe.zoom ** draw(-1, 1)
    stretch = recipe.stretch ** draw(-0.5, 0.5)
    full = sample.image.shape[1:]
    cut = [max(round(full[0] * zoom * stretch), 1), max(round(full[1] * zoom / stretch), 1)]
    # A smaller cut-out lies anywhere in the image, a larger one anywhere around it.
    low = [round(draw(min(0, side - part), max(0, side - part)))
           for side, part in zip(full, cut, strict=True)]
    image = resize(_cut(sample.image, low, cut, pad), size)
    scale = torch.tensor([size[1] / cut[1], size[0] / cut[0]] * 2)
    corners = (sample.corners - torch.tensor([low[1], low[0]] * 2)) * scale
    seen, keep = visible(corners, size)
    seen, classes = seen[keep], sample.classes[keep]
    if draw(0, 1) < 0.5:
        image = image.flip(2)
        seen = torch.stack([size[1] - seen[:, 2], seen[:, 1], size[1] - seen[:, 0], seen[:, 3]], 1)
    if recipe.upside_down and draw(0, 1) < 0.5:
        image = image.flip(1)
        seen = torch.stack([seen[:, 0], size[0] - seen[:, 3], seen[:, 2], size[0] - seen[:, 1]], 1)
    contrast, bright = 1 + recipe.light * draw(-1, 1), recipe.light * draw(-1, 1)
    mean = image.float().mean()
    image = (image.float() - mean) * contrast + mean * (1 + bright)
    return Sample(image.round().clamp(0, 255).to(torch.uint8), seen, classes)


def visible(corners: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4), cut off at the edges of `size` (height, width), and which of them stay."""
    limit = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32)
    seen = corners.clamp_min(0).minimum(limit)
    return seen, area(seen) >= LEAST_VISIBLE * area(corners)


def area(corners: Tensor) -> Tensor:
    """Of boxes (n, 4)."""
    return (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])


def _cut(image: Tensor, low: list[int], size: list[int], pad: int) -> Tensor:
    """Rows and columns from `low` on, `size` of them, `pad` where there are none."""
    (top, left), (height, width) = low, size
    more = (max(-left, 0), max(left + width - image.shape[2], 0),
            max(-top, 0), max(top + height - image.shape[1], 0))
    image = F.pad(image, more, value=pad)
    top, left = max(top, 0), max(left, 0)
    return image[:, top:top + height, left:left + width]
