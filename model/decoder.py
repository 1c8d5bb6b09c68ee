"""The decoder of compressed pictures: codes of all patches as one map in, the whole frame out.

Which place in its patch a code has says what it means, so first a matrix makes features from all
bits of each patch. Everything behind it are convolutions across the patches' borders, most of them
at an eighth of the resolution, the rest at a quarter; the last one gives blocks of 4x4 pixels.
Layers and sizes are our choice; the source paper's decoder is not known to us.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.checked import ConfigError
from export.codec import STEP, DecoderConfig, Patches
from export.decoder_file import Header, load_decoder, save_decoder
from export.picture import Picture
from export.transforms import BLOCK
from model.pictures import cut, join
from model.tables import Tables

TILE = 32  # patches each way that are decoded at once


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
        self.alone = config.alone
        # How far the convolutions see, in patches.
        self.reach = -(-(16 * config.blocks + 8 * config.fine_blocks + 4) // patches.side)
        self.side, self.tables = patches.side, None
        if config.transforms:
            self.tables = Tables(config.transforms, 3 * patches.side**2)
            self.look = nn.Conv2d(3 * STEP**2, width, 1)
            self.fine_look = nn.Conv2d(3 * BLOCK**2, fine, 1)
        self.patch = nn.Conv2d(patches.bits, width * self.grid**2, 1)
        self.coarse = nn.Sequential(*(Block(width) for _ in range(config.blocks)))
        self.enlarge = nn.Conv2d(width, 4 * fine, 1)
        self.fine = nn.Sequential(*(Block(fine) for _ in range(config.fine_blocks)))
        self.pixels = nn.Conv2d(fine, 3 * 16, 3, padding=1)
        if self.tables:  # the picture begins as theirs
            nn.init.zeros_(self.pixels.weight)
            nn.init.zeros_(self.pixels.bias)

    def forward(self, codes: Tensor) -> Tensor:
        decoded = self._corrected if self.tables else self._decoded
        if not self.alone:
            return decoded(codes)
        n, width = len(codes), codes.shape[3]
        pixels = decoded(cut(codes, self.grid))
        return join(pixels, n, width // self.grid)

    def _decoded(self, codes: Tensor) -> Tensor:
        x = F.pixel_shuffle(self.patch(F.pixel_unshuffle(codes, self.grid)), self.grid)
        x = self.fine(F.pixel_shuffle(self.enlarge(self.coarse(x)), 2))
        return F.pixel_shuffle(self.pixels(x), 4).float() + 0.5

    def _corrected(self, codes: Tensor) -> Tensor:
        """The picture that the tables make, and what the convolutions add to it."""
        bits = F.pixel_unshuffle(codes, self.grid)
        n, _, rows, columns = bits.shape
        with torch.autocast(codes.device.type, enabled=False):
            made = self.tables(bits.permute(0, 2, 3, 1).flatten(0, 2).float()) / 255 - 0.5
            across = self.side // BLOCK
            made = made.view(n, rows, columns, across, across, BLOCK, BLOCK, 3)
            made = made.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(
                n, 3, rows * self.side, columns * self.side)
        x = F.pixel_shuffle(self.patch(bits), self.grid)
        x = self.enlarge(self.coarse(x + self.look(F.pixel_unshuffle(made, STEP))))
        x = self.fine(F.pixel_shuffle(x, 2) + self.fine_look(F.pixel_unshuffle(made, BLOCK)))
        return F.pixel_shuffle(self.pixels(x), BLOCK).float() + made + 0.5


def only(codes: Tensor, channels: Tensor | int) -> Tensor:
    """Codes (n, channels, h, w), 0 or 1, as -1 or 1, and as 0 behind the first `channels`.

    `channels` is one number, or one for each of the n.
    """
    number = torch.arange(codes.shape[1], device=codes.device)
    kept = number < torch.as_tensor(channels, device=codes.device).reshape(-1, 1)
    return (2 * codes - 1) * kept[:, :, None, None]


def build(header: Header) -> Decoder:
    """A decoder of these sizes, without memory for its parameters."""
    with torch.device("meta"):
        return Decoder(header.patches, header.decoder)


def save(decoder: Decoder, header: Header, path: Path):
    """Writes a decoder's file."""
    save_decoder(header, {name: values.numpy() for name, values in decoder.state_dict().items()},
                 path)


def load(path: Path) -> tuple[Header, Decoder]:
    """A decoder's file; ConfigError if it is none."""
    header, arrays = load_decoder(path, lambda header: {
        name: tuple(values.shape) for name, values in build(header).state_dict().items()})
    decoder = build(header)
    state = {name: torch.from_numpy(values).float() for name, values in arrays.items()}
    decoder.load_state_dict(state, assign=True)
    return header, decoder.eval()


@torch.no_grad()
def decode(decoder: Decoder, codes: Tensor, height: int, width: int, channels: int) -> Tensor:
    """Pixels uint8 (3, height, width) of codes (1, channels, h, w), the first `channels` of them.

    Codes are 0 or 1; what lies behind the picture's edges is cut off. Large pictures are decoded in
    tiles, with as much around each as can matter, so that memory stays small.
    """
    codes, tile, more = only(codes, channels), TILE * decoder.grid, decoder.reach * decoder.grid
    rows, columns = codes.shape[2:]
    out = torch.empty(3, STEP * rows, STEP * columns, dtype=torch.uint8)
    for top in range(0, rows, tile):
        for left in range(0, columns, tile):
            above, before = min(top, more), min(left, more)
            x = decoder(codes[:, :, top - above:top + tile + more,
                              left - before:left + tile + more])[0]
            x = x[:, STEP * above:STEP * (above + tile), STEP * before:STEP * (before + tile)]
            out[:, STEP * top:STEP * (top + tile), STEP * left:STEP * (left + tile)] = (
                x.clamp(0, 1) * 255).round().to(torch.uint8)
    return out[:, :height, :width]


def decompress(picture: Picture, header: Header, decoder: Decoder) -> np.ndarray:
    """Pixels uint8 [H, W, 3] of a compressed picture.

    Raises
    ------
    ConfigError
        If the decoder belongs to another encoder.
    """
    patches = header.patches
    if picture.encoder[:16] != header.encoder[:16] or picture.patches.side != patches.side \
            or picture.patches.channels > patches.channels:
        raise ConfigError(f"the picture was compressed by network {picture.encoder[:16]}, but the "
                          f"decoder is that of {header.encoder[:16]}")
    codes = torch.from_numpy(picture.map).float()[None]
    codes = F.pad(codes, (0, 0, 0, 0, 0, patches.channels - codes.shape[1]))
    pixels = decode(decoder, codes, picture.height, picture.width, picture.patches.channels)
    return pixels.permute(1, 2, 0).numpy()
