"""Images and labels: any folder of the user's, or an archive of :mod:`model.archives`.

`HEXLANE_DATA` names a folder that holds one of

* `{train,test}_images.npy` (uint8 [N, H, W, C]) and `{train,test}_labels.npy` (integers [N]),
* `{train,test}/CLASS/` with PNG or JPEG images, classes in the order of their names in `train`,
* the archive of CIFAR-10, CIFAR-100 or STL-10, which is downloaded to `build/data` if nothing is
  named and the network takes its images.

The last tenth of the training images is held out for validation. Arrays are taken in the order that
they have, so it must be a random one. A file `classes.txt` may name the classes, one per line.
"""

import hashlib
import os
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from export.checked import ConfigError
from export.network import NetworkConfig
from export.picture import PIXEL_LIMIT
from model.archives import CLASSES, SETS

# SHA-256 of the test labels of CIFAR-10, one byte each.
TEST_LABELS = "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5"
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
PICTURE_FORMATS = {**FORMATS, ".webp": "WEBP"}
FILE_LIMIT = 2**26  # bytes of an image file


def holdout(count: int) -> int:
    """Training images that are held out for validation: the last tenth."""
    return -(-count // 10)


def load_images(network: NetworkConfig, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, H, W, C] and labels int64 [N] of `train`, `validation` or `test`.

    Raises
    ------
    ConfigError
        If there are none that the network takes, or a file is damaged; nothing is downloaded then.
    """
    name = "test" if split == "test" else "train"
    size = network.height, network.width, network.channels
    folder, named = _folder()
    if (folder / f"{name}_images.npy").exists():
        images, labels = (_array(folder / f"{name}_{kind}.npy") for kind in ("images", "labels"))
    elif (folder / name).is_dir():
        images, labels = _from_classes(folder / name, _class_folders(folder), network)
    elif archive := SETS.get((size, network.classes)):
        images, labels = archive.load(folder, name, fetch=not named)
    else:
        raise ConfigError(f"{folder}: holds neither {name}_images.npy nor {name}/CLASS/ with images"
                          f" of {'x'.join(map(str, size))}; HEXLANE_DATA names the folder")
    if images.dtype != np.uint8 or images.shape[1:] != size or not len(images):
        raise ConfigError(f"{folder}: {name} images must be uint8 [N, {str(size)[1:-1]}], "
                          f"not {images.dtype} {list(images.shape)}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1] \
            or labels.min() < 0 or labels.max() >= network.classes:
        raise ConfigError(f"{folder}: {name} labels must be {len(images)} integers below "
                          f"{network.classes}, not {labels.dtype} {list(labels.shape)}"
                          + (f" up to {labels.max()}" if labels.size else ""))
    first = len(images) - holdout(len(images))
    part = {"train": slice(first), "validation": slice(first, None), "test": slice(None)}[split]
    return images[part], labels[part].astype(np.int64)


def class_names(network: NetworkConfig) -> list[str]:
    """Names of the classes as far as the data says them, else their numbers."""
    folder, _ = _folder()
    if (folder / "classes.txt").is_file():
        names = (folder / "classes.txt").read_text(errors="replace").split("\n")
        names = [name.strip() for name in names[:network.classes]]
    elif (folder / "test_labels.npy").is_file():
        labels = _array(folder / "test_labels.npy")
        # Other data may have as many images of the same size and as many classes.
        plain = np.issubdtype(labels.dtype, np.integer)
        digest = hashlib.sha256(labels.astype(np.uint8).tobytes()).hexdigest() if plain else ""
        names = list(CLASSES) if digest == TEST_LABELS else []
    elif (folder / "train").is_dir() or (folder / "test").is_dir():
        names = _class_folders(folder)
    else:
        archive = SETS.get(((network.height, network.width, network.channels), network.classes))
        names = list(archive.classes) if archive else []
    return names if len(names) == network.classes else [str(k) for k in range(network.classes)]


def read_image(path: Path, size: tuple[int, int, int]) -> np.ndarray:
    """Pixels uint8 [H, W, C] of a PNG or JPEG file that has this size; ConfigError if not.

    Alpha does not count.
    """
    height, width, channels = size
    with _opened(path, FORMATS) as image:
        if image.size != (width, height):
            raise ConfigError(f"{path}: wanted {width}x{height} pixels, "
                              f"got {image.width}x{image.height}")
        pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    pixels = pixels.reshape(height, width, -1)
    if pixels.shape != size:
        raise ConfigError(f"{path}: images have 1 or 3 channels, wanted {channels}")
    return pixels


def read_picture(path: Path) -> np.ndarray:
    """Pixels uint8 [H, W, 3] of a PNG, JPEG or WebP file of any size; ConfigError if not."""
    with _opened(path, PICTURE_FORMATS) as image:
        if image.width * image.height > PIXEL_LIMIT:
            raise ConfigError(f"{path}: wanted at most {PIXEL_LIMIT} pixels, "
                              f"got {image.width}x{image.height}")
        return np.asarray(image.convert("RGB"))


@contextmanager
def _opened(path: Path, formats: dict[str, str]):
    """An image file of eight bits a channel; ConfigError if it is none, or damaged."""
    try:
        if not path.is_file() or path.stat().st_size > FILE_LIMIT:
            raise ConfigError(f"{path}: wanted an image file of at most {FILE_LIMIT} bytes")
        with warnings.catch_warnings(action="ignore"), \
                Image.open(path, formats=[formats.get(path.suffix.lower(), "PNG")]) as image:
            if image.mode.startswith(("I", "F")):
                raise ConfigError(f"{path}: wanted 8 bits a channel, got {image.mode}")
            if any(";16" in str(tile.args) for tile in image.tile):  # Pillow takes the high ones
                raise ConfigError(f"{path}: wanted 8 bits a channel, got 16")
            yield image
    except ConfigError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise ConfigError(f"{path}: cannot be read as an image: {error}") from error


def _folder() -> tuple[Path, bool]:
    """Where the data is, and whether the user says so."""
    named = os.environ.get("HEXLANE_DATA")
    return Path(named or "build/data"), bool(named)


def _array(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged file may raise anything
        raise ConfigError(f"{path}: cannot be read as an array: {error}") from error
    if not isinstance(values, np.ndarray):
        raise ConfigError(f"{path}: wanted one array, got an archive of arrays")
    return values


def _class_folders(folder: Path) -> list[str]:
    """Names of the classes, those of `train` if it is there."""
    split = folder / "train" if (folder / "train").is_dir() else folder / "test"
    return sorted(path.name for path in split.iterdir()
                  if path.is_dir() and not path.name.startswith("."))


def _from_classes(folder: Path, names: list[str], network: NetworkConfig
                  ) -> tuple[np.ndarray, np.ndarray]:
    if len(names) != network.classes:
        raise ConfigError(f"{folder}: wanted a folder for each of {network.classes} classes, "
                          f"got {len(names)}")
    here = {path.name for path in folder.iterdir() if path.is_dir()}
    if strange := sorted(name for name in here - set(names) if not name.startswith(".")):
        raise ConfigError(f"{folder / strange[0]}: is none of the classes in train")
    images, labels, places = [], [], []
    for number, name in enumerate(names):
        if name not in here:
            continue
        files = sorted(path for path in (folder / name).iterdir()
                       if path.suffix.lower() in FORMATS)
        images += [read_image(file, (network.height, network.width, network.channels))
                   for file in files]
        labels += [number] * len(files)
        places += [(k + 0.5) / len(files) for k in range(len(files))]
    if not images:
        raise ConfigError(f"{folder}: wanted a folder of PNG or JPEG images for each class, "
                          f"found none")
    # Classes alternate, so that any part, the held-out one too, has its share of each.
    order = np.argsort(places, kind="stable")
    return np.stack(images)[order], np.array(labels)[order]
