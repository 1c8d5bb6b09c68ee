"""The decoder of compressed pictures: codes of all patches as one map in, the whole frame out.

Which place in its patch a code has says what it means, so first a matrix makes features from all
bits of each patch. Everything behind it are convolutions across the patches' borders, most of them
at an eighth of the resolution, the rest at a quarter; the last one gives blocks of 4x4 pixels.
Layers and sizes are our choice; the source paper's decoder is not known to us.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.codec import DecoderConfig, Patches


class Block(nn.Module):
    """Two 3x3 convolutions beside the features, which they are added to."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)  # a block begins as none
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Decoder(nn.Module):
    """Codes (n, channels, h, w), each -1, 1, or 0 if it was cut off, to pixels (n, 3, 8 h, 8 w).

    h and w are multiples of a patch's grid. Pixels are meant to be 0 ... 1, and not clipped.
    """

    def __init__(self, patches: Patches, config: DecoderConfig):
        super().__init__()
        self.grid, width, fine = patches.grid, config.width, config.fine_width
        self.patch = nn.Conv2d(patches.bits, width * self.grid**2, 1)
        self.coarse = nn.Sequential(*(Block(width) for _ in range(config.blocks)))
        self.enlarge = nn.Conv2d(width, 4 * fine, 1)
        self.fine = nn.Sequential(*(Block(fine) for _ in range(config.fine_blocks)))
        self.pixels = nn.Conv2d(fine, 3 * 16, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.patch(F.pixel_unshuffle(codes, self.grid))
        x = self.coarse(F.pixel_shuffle(x, self.grid))
        x = self.fine(F.pixel_shuffle(self.enlarge(x), 2))
        return F.pixel_shuffle(self.pixels(x), 4).float() + 0.5


def only(codes: Tensor, channels: Tensor | int) -> Tensor:
    """Codes (n, channels, h, w), 0 or 1, as -1 or 1, and as 0 behind the first `channels`.

    `channels` is one number, or one for each of the n.
    """
    number = torch.arange(codes.shape[1], device=codes.device)
    kept = number < torch.as_tensor(channels, device=codes.device).reshape(-1, 1)
    return (2 * codes - 1) * kept[:, :, None, None]
