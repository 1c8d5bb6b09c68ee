"""Pictures to train compression on: any folder of them, which `HEXLANE_IMAGES` names.

If it has the folders `train` and `validation`, these are the two splits; if not, every tenth file
validates. Subfolders are searched; files are PNG, JPEG or WebP, in color or gray.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.checked import ConfigError
from model.data import PICTURE_FORMATS, read_picture


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
    files = sorted(path for path in place.rglob("*") if path.suffix.lower() in PICTURE_FORMATS)
    if not split_folders:
        files = [path for k, path in enumerate(files) if (k % 10 == 9) == (split == "validation")]
    pictures = [torch.from_numpy(read_picture(path).transpose(2, 0, 1).copy()) for path in files]
    pictures = [each for each in pictures if min(each.shape[1:]) >= least]
    if not pictures:
        raise ConfigError(f"{place}: must hold images of at least {least} pixels each way for "
                          f"{split}, not {len(files)} smaller ones")
    return pictures


def cut(pictures: Tensor, side: int) -> Tensor:
    """Pictures (n, channels, h, w), or maps of codes, as squares of `side`, row after row."""
    n, channels, height, width = pictures.shape
    blocks = pictures.reshape(n, channels, height // side, side, width // side, side)
    return blocks.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, side, side)


def join(patches: Tensor, n: int, columns: int) -> Tensor:
    """Patches (n h w, channels, side, side) of `n` pictures, `columns` patches wide, as these."""
    _, channels, side, _ = patches.shape
    blocks = patches.reshape(n, -1, columns, channels, side, side).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(n, channels, -1, columns * side)


def crops(pictures: list[Tensor], count: int, side: int, generator: torch.Generator) -> Tensor:
    """Squares uint8 (count, 3, side, side) from anywhere, half of them mirrored, half turned."""
    picks = torch.randint(0, len(pictures), (count,), generator=generator)
    return crops_of(pictures, picks, side, generator)


def crops_of(pictures: list[Tensor], picks: Tensor, side: int,
             generator: torch.Generator) -> Tensor:
    """Such squares, one of each of the pictures that are picked (n,)."""
    made = []
    for pick in picks.tolist():
        picture = pictures[pick]
        top, left = (int(torch.randint(0, full - side + 1, (), generator=generator))
                     for full in picture.shape[1:])
        crop = picture[:, top:top + side, left:left + side]
        flip, turn = torch.randint(0, 2, (2,), generator=generator).tolist()
        crop = crop.flip(2) if flip else crop
        made.append(crop.transpose(1, 2) if turn else crop)
    return torch.stack(made)


def random_patches(count: int, side: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Squares uint8 [count, side, side, 3] of the training pictures, and of which each is one."""
    pictures, generator = load_pictures("train", side), torch.Generator().manual_seed(seed)
    picks = torch.randint(0, len(pictures), (count,), generator=generator)
    made = crops_of(pictures, picks, side, generator)
    return made.permute(0, 2, 3, 1).numpy(), picks.numpy()
