"""What a training image may be shown as: cropped, mirrored, with a hole."""

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 4  # pixels of random translation


def holes(n: int, size: tuple[int, int], side: int, generator: torch.Generator) -> Tensor:
    """A square of `side` pixels anywhere in each of n images, bool (n, 1, height, width).

    Its centre is inside the image (DeVries and Taylor 2017).
    """
    inside = []
    for full in size:
        first = torch.randint(0, full, (n, 1), generator=generator) - side // 2
        at = torch.arange(full) - first
        inside.append((at >= 0) & (at < side))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def augment(images: Tensor, generator: torch.Generator, pad: int, crop: int = 0,
            cutout: int = 0) -> Tensor:
    """Random crops and flips of images (n, c, h, w), uint8, and a square of `pad` in each.

    A crop of the images' own size (0) may reach over each edge by `MARGIN`, a smaller square by
    none. `cutout` is the side of the square.
    """
    n, channels, height, width = images.shape
    edge = 0 if crop else MARGIN
    padded = F.pad(images, (edge,) * 4, value=pad)
    size = (crop or height, crop or width)
    place = [torch.randint(0, full + 2 * edge - side + 1, (n, 1), generator=generator)
             + torch.arange(side) for full, side in zip((height, width), size, strict=True)]
    flip = torch.rand(n, 1, generator=generator) < 0.5
    place[1] = torch.where(flip, place[1].flip(1), place[1])
    hole = holes(n, size, cutout, generator)
    index = [torch.arange(n)[:, None, None, None], torch.arange(channels)[None, :, None, None],
             place[0][:, None, :, None], place[1][:, None, None, :]]
    cropped = padded[tuple(each.to(images.device) for each in index)]
    return cropped.masked_fill(hole.to(images.device), pad)
