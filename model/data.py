"""CIFAR-10: from the authors' archive, checked, or from a folder of four `.npy` files.

`HEXLANE_DATA` names a folder that holds either `{train,test}_{images,labels}.npy` (uint8
[N, 32, 32, 3] and [N]) or `cifar-10-python.tar.gz`; without it the archive is downloaded to
`build/data`. A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import hashlib
import os
import pickle
import tarfile
import urllib.request
from pathlib import Path

import numpy as np

from export.config import ConfigError

ARCHIVE = "cifar-10-python.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
MD5 = "c58f30108f718f92721af3b95e74349a"
HOLDOUT = 5000  # the last training images are the validation split

CLASSES = ("airplane", "automobile", "bird", "cat", "deer",
           "dog", "frog", "horse", "ship", "truck")


_ARRAYS = frozenset({("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
                     ("numpy", "dtype"), ("_codecs", "encode")})


class _ArraysOnly(pickle.Unpickler):
    """Reads the archive's dictionaries of arrays and nothing that could run code."""

    def find_class(self, module, name):
        if (module, name) not in _ARRAYS:
            raise ConfigError(f"{ARCHIVE}: holds an object of {module}.{name}, wanted arrays only")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def load_cifar10(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 32, 32, 3] (RGB) and labels uint8 [N] of `train` or `test`.

    Raises
    ------
    ConfigError
        If the data is missing, incomplete or fails its checksum.
    """
    count = {"train": 50000, "test": 10000}[split]
    folder = Path(os.environ.get("HEXLANE_DATA") or "build/data")
    if (folder / f"{split}_images.npy").exists():
        try:
            images, labels = (np.load(folder / f"{split}_{kind}.npy", allow_pickle=False)
                              for kind in ("images", "labels"))
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"{folder}: {split} arrays cannot be read: {error}") from error
    else:
        images, labels = _from_archive(folder, split)
    if images.shape != (count, 32, 32, 3) or labels.shape != (count,) \
            or images.dtype != np.uint8:
        raise ConfigError(f"{folder}: wanted {count} uint8 images of 32x32x3 with labels for "
                          f"{split}, got {images.dtype} {images.shape} and {labels.shape}")
    return images, labels.astype(np.uint8)


def _from_archive(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    archive = folder / ARCHIVE
    if not archive.exists():
        if "HEXLANE_DATA" in os.environ:
            raise ConfigError(f"{folder}: HEXLANE_DATA holds neither {split}_images.npy "
                              f"nor {ARCHIVE}")
        folder.mkdir(parents=True, exist_ok=True)
        part = archive.with_suffix(".part")
        try:
            urllib.request.urlretrieve(URL, part)
        except OSError as error:
            raise ConfigError(f"{URL}: download failed: {error}; set HEXLANE_DATA to a folder "
                              f"with the data") from error
        part.rename(archive)
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    if digest != MD5:
        raise ConfigError(f"{archive}: md5 should be {MD5}, is {digest}; delete it and try again")
    names = [f"data_batch_{k}" for k in range(1, 6)] if split == "train" else ["test_batch"]
    images, labels = [], []
    with tarfile.open(archive) as tar:
        for name in names:
            batch = _ArraysOnly(tar.extractfile(f"cifar-10-batches-py/{name}"),
                                encoding="bytes").load()
            images.append(batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            labels += batch[b"labels"]
    return np.concatenate(images), np.array(labels, dtype=np.uint8)
