"""CIFAR-10, CIFAR-100 and STL-10 from their authors' archives, whose MD5 is checked.

A folder holds the archive; of STL-10 (2.6 GB, most of it without labels) the unpacked folder
`stl10_binary` does too. A network takes the set whose images and number of classes are its own.

* CIFAR-10 and CIFAR-100: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images",
  2009. Of the former the Python version is read, of the latter the binary one: two bytes for the
  coarse and the fine label, then 3 x 32 x 32 pixels. The fine label is the class.
* STL-10: A. Coates, H. Lee, A. Y. Ng, "An Analysis of Single Layer Networks in Unsupervised Feature
  Learning", AISTATS 2011. Labels from 1 to 10; 3 x 96 x 96 pixels, column by column.
"""

import hashlib
import io
import pickle
import shutil
import tarfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import numpy as np
from tqdm import tqdm

from export.checked import ConfigError

ARCHIVE = "cifar-10-python.tar.gz"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer",
           "dog", "frog", "horse", "ship", "truck")
_ARRAYS = frozenset({("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
                     ("numpy", "dtype"), ("_codecs", "encode")})
Read = Callable[[str], bytes]  # contents of one file of an archive


class _ArraysOnly(pickle.Unpickler):
    """Reads the archive's dictionaries of arrays and nothing that could run code."""

    def find_class(self, module, name):
        if (module, name) not in _ARRAYS:
            raise ConfigError(f"{ARCHIVE}: holds an object of {module}.{name}, wanted arrays only")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _cifar10(read: Read, split: str) -> tuple[np.ndarray, np.ndarray]:
    names = [f"data_batch_{k}" for k in range(1, 6)] if split == "train" else ["test_batch"]
    batches = [_ArraysOnly(io.BytesIO(read(name)), encoding="bytes").load() for name in names]
    images = np.concatenate([batch[b"data"] for batch in batches])
    return (images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1),
            np.concatenate([batch[b"labels"] for batch in batches]))


def _cifar100(read: Read, split: str) -> tuple[np.ndarray, np.ndarray]:
    records = _records(read(f"{split}.bin"), 2 + 3 * 32 * 32, f"{split}.bin")
    images = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, records[:, 1].astype(np.int64)


def _stl10(read: Read, split: str) -> tuple[np.ndarray, np.ndarray]:
    images = _records(read(f"{split}_X.bin"), 3 * 96 * 96, f"{split}_X.bin")
    labels = np.frombuffer(read(f"{split}_y.bin"), np.uint8).astype(np.int64) - 1
    return images.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1), labels


def _records(content: bytes, size: int, name: str) -> np.ndarray:
    if not content or len(content) % size:
        raise ConfigError(f"{name}: wanted records of {size} bytes, got {len(content)} bytes")
    return np.frombuffer(content, np.uint8).reshape(-1, size)


@dataclass(frozen=True)
class Archive:
    """Where a data set is, what is in it, and how to read it."""

    url: str
    md5: str
    folder: str  # inside of the archive
    arrays: Callable[[Read, str], tuple[np.ndarray, np.ndarray]]
    classes: tuple[str, ...]
    unpacked: dict[str, str] = field(default_factory=dict)  # MD5 of files that may lie unpacked

    @property
    def name(self) -> str:
        """Of the archive's file."""
        return self.url.rsplit("/", 1)[1]

    def load(self, folder: Path, split: str, fetch: bool) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [N, H, W, C] and labels [N] of `train` or `test`, as they are stored.

        What `folder` does not hold is downloaded there, if `fetch`; ConfigError if that fails, or
        if anything is damaged.
        """
        here = folder / self.folder
        if self.unpacked and here.is_dir():
            return self.arrays(lambda name: self._file(here / name), split)
        archive = folder / self.name
        if not archive.exists():
            if not fetch:
                raise ConfigError(f"{folder}: HEXLANE_DATA holds neither {split}_images.npy nor "
                                  f"{split}/CLASS/ nor {self.name}")
            _download(self.url, archive)
        try:
            with archive.open("rb") as file:
                _check(archive, hashlib.file_digest(file, "md5").hexdigest(), self.md5)
            with tarfile.open(archive) as tar:
                return self.arrays(
                    lambda name: tar.extractfile(f"{self.folder}/{name}").read(), split)
        except (OSError, EOFError, KeyError, tarfile.TarError) as error:
            raise ConfigError(f"{archive}: cannot be read: {error}") from error

    def _file(self, path: Path) -> bytes:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        _check(path, hashlib.md5(content).hexdigest(), self.unpacked[path.name])
        return content


def _check(path: Path, digest: str, wanted: str):
    if digest != wanted:
        raise ConfigError(f"{path}: md5 should be {wanted}, is {digest}; delete it and try again")


def _download(url: str, path: Path):
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=60) as source, part.open("wb") as file, \
                tqdm.wrapattr(file, "write", desc=path.name, total=getattr(source, "length", None)
                              ) as shown:
            shutil.copyfileobj(source, shown)
    except (OSError, HTTPException) as error:
        part.unlink(missing_ok=True)
        raise ConfigError(f"{url}: download failed: {error}; set HEXLANE_DATA to a folder "
                          f"with the data") from error
    part.rename(path)


CIFAR10 = Archive(f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}", "c58f30108f718f92721af3b95e74349a",
                  "cifar-10-batches-py", _cifar10, CLASSES)
CIFAR100 = Archive(
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8",
    "cifar-100-binary", _cifar100, tuple("""
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
    cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()))
STL10 = Archive(
    "https://cs.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    "91f7769df0f17e558f3565bffb0c7dfb", "stl10_binary", _stl10,
    ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    {"train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
     "train_y.bin": "5a34089d4802c674881badbb80307741",
     "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
     "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e"})
# By the size of the images and the number of classes.
SETS = {((32, 32, 3), 10): CIFAR10, ((32, 32, 3), 100): CIFAR100, ((96, 96, 3), 10): STL10}
