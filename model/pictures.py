"""Pictures to train compression on: any folder of them, which `HEXLANE_IMAGES` names.

If it has the folders `train` and `validation`, these are the two splits; if not, every tenth file
validates. Subfolders are searched; files are PNG, JPEG or WebP, in color or gray.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from export.checked import ConfigError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
FILE_LIMIT, PIXEL_LIMIT = 2**28, 2**25  # bytes of a file, pixels of a picture


def read_picture(path: Path) -> np.ndarray:
    """Pixels uint8 [H, W, 3] of a picture of any size; ConfigError if it cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size > FILE_LIMIT:
            raise ConfigError(f"{path}: wanted an image file of at most {FILE_LIMIT} bytes")
        with warnings.catch_warnings(action="ignore"), \
                Image.open(path, formats=[FORMATS.get(path.suffix.lower(), "PNG")]) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise ConfigError(f"{path}: wanted at most {PIXEL_LIMIT} pixels, "
                                  f"got {image.width}x{image.height}")
            if image.mode.startswith(("I", "F")):
                raise ConfigError(f"{path}: wanted 8 bits a channel, got {image.mode}")
            return np.asarray(image.convert("RGB"))
    except ConfigError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise ConfigError(f"{path}: cannot be read as an image: {error}") from error


def load_pictures(split: str, least: int) -> list[Tensor]:
    """Pictures uint8 (3, height, width) of `train` or `validation`, in the order of their names.

    Raises
    ------
    ConfigError
        If there are none with sides of at least `least` pixels, or a file is damaged.
    """
    named = os.environ.get("HEXLANE_IMAGES")
    if not named:
        raise ConfigError("HEXLANE_IMAGES must name a folder of images to train on, not nothing")
    folder = Path(named)
    split_folders = all((folder / name).is_dir() for name in ("train", "validation"))
    place = folder / split if split_folders else folder
    files = sorted(path for path in place.rglob("*") if path.suffix.lower() in FORMATS)
    if not split_folders:
        files = [path for k, path in enumerate(files) if (k % 10 == 9) == (split == "validation")]
    pictures = [torch.from_numpy(read_picture(path).transpose(2, 0, 1).copy()) for path in files]
    pictures = [each for each in pictures if min(each.shape[1:]) >= least]
    if not pictures:
        raise ConfigError(f"{place}: must hold images of at least {least} pixels each way for "
                          f"{split}, not {len(files)} smaller ones")
    return pictures


def crops(pictures: list[Tensor], count: int, side: int, generator: torch.Generator) -> Tensor:
    """Squares uint8 (count, 3, side, side) from anywhere, half of them mirrored, half turned."""
    made = []
    for pick in torch.randint(0, len(pictures), (count,), generator=generator).tolist():
        picture = pictures[pick]
        top, left = (int(torch.randint(0, full - side + 1, (), generator=generator))
                     for full in picture.shape[1:])
        crop = picture[:, top:top + side, left:left + side]
        flip, turn = torch.randint(0, 2, (2,), generator=generator).tolist()
        crop = crop.flip(2) if flip else crop
        made.append(crop.transpose(1, 2) if turn else crop)
    return torch.stack(made)
