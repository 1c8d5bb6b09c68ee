"""Compression patch by patch: what an encoder and its decoder agree on, and how they are trained.

A picture is cut into patches, each of which the engine makes a map of one-bit codes of. The codes
of all patches, side by side, are one map again, an eighth as high and wide as the picture.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from export.checked import ConfigError, Frozen, Rate, Share, Steps, check_phases, count
from export.network import NetworkConfig, Shape
from export.transforms import TransformsConfig

STEP = 8  # pixels per code, each way


class DecoderConfig(Frozen):
    """Widths of a decoder, :mod:`model.decoder`; its other sizes follow from the encoder."""

    width: count(1024) = 96  # channels at an eighth of the resolution
    blocks: count(64) = 4  # pairs of convolutions there
    fine_width: count(1024) = 48  # ... and at a quarter
    fine_blocks: count(64) = 2
    alone: bool = False  # for comparison: each patch is decoded as if there were no others
    transforms: TransformsConfig | None = None  # of the encoder, if it is made of such


class CodecConfig(Frozen):
    """The recipe of an encoder and its decoder; :mod:`model.codec` says what it does with it."""

    decoder: DecoderConfig = DecoderConfig()
    # "transforms": what it begins with stays. "linear", for comparison, which cannot be exported:
    # bits are the signs of linear functions of the patch.
    encoder: Literal["network", "transforms", "linear"] = "network"
    steps: count(2**31) = 20000  # batches, in all
    float_steps: Steps = 2000  # of these, at first, only the codes that leave are rounded
    code_steps: Steps = 2000  # behind them, with the other codes too, but not the weights
    batch: count(4096) = 8
    crop: count(4096) = 256  # side of the squares that are trained on
    learning_rate: Rate = 0.01  # of the encoder, peak
    decoder_learning_rate: Rate = 0.0015
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    ms_ssim: Share = 0.3  # its share of the loss
    truncation: Share = 0.3  # of the crops decoded from their first channels, at least half of them
    validate_every: count(2**31) = 1000  # steps
    seed: Steps = 1

    @model_validator(mode="after")
    def _phases_fit(self):
        if self.encoder != "transforms":
            check_phases(self, "float_steps", "code_steps")
        if (self.encoder == "transforms") != (self.decoder.transforms is not None):
            raise ValueError("decoder.transforms must be given if encoder is \"transforms\", and "
                             "only then")
        return self


@dataclass(frozen=True)
class Patches:
    """Squares of `side` pixels, and the codes of each: `channels` maps of `grid` x `grid` bits.

    An encoder whose first operation reads bands sees `together` patches in one frame: its row s of
    blocks of `block` x `block` pixels has block s of each.
    """

    side: int
    channels: int
    together: int = 1
    block: int = 0

    @property
    def grid(self) -> int:
        """Side of a patch's map of codes."""
        return self.side // STEP

    @property
    def bits(self) -> int:
        """Codes of a patch."""
        return self.channels * self.grid**2

    def count(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that cover a picture."""
        return -(-height // self.side), -(-width // self.side)

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """A picture uint8 [H, W, 3] as patches [N, side, side, 3] in raster order.

        Where the last ones reach over its edge they repeat the pixels there.
        """
        rows, columns = self.count(*picture.shape[:2])
        more = (rows * self.side - picture.shape[0], columns * self.side - picture.shape[1])
        padded = np.pad(picture, ((0, more[0]), (0, more[1]), (0, 0)), mode="edge")
        blocks = padded.reshape(rows, self.side, columns, self.side, 3)
        return blocks.swapaxes(1, 2).reshape(-1, self.side, self.side, 3)

    def frames(self, patches: np.ndarray) -> np.ndarray:
        """What the network reads: patches [N, side, side, 3] themselves, or frames of them.

        The last one is filled up with the last patch.
        """
        if self.together == 1:
            return patches
        filled = np.concatenate([patches, patches[-1:].repeat(-len(patches) % self.together, 0)])
        across = self.side // self.block
        cut = filled.reshape(-1, self.together, across, self.block, across, self.block, 3)
        return cut.transpose(0, 2, 4, 3, 1, 5, 6).reshape(
            -1, self.block * across**2, self.block * self.together, 3)

    def codes(self, maps: np.ndarray, count: int) -> np.ndarray:
        """Codes [count, channels, grid, grid] of the maps that the network makes of frames."""
        if self.together == 1:
            return maps
        return maps[:, :, 0].transpose(0, 2, 1).reshape(-1, self.channels, self.grid,
                                                        self.grid)[:count]

    def join(self, codes: np.ndarray, height: int, width: int) -> np.ndarray:
        """Codes [N, C, grid, grid] of a picture's patches as one map [C, rows, columns]."""
        rows, columns = self.count(height, width)
        blocks = codes.reshape(rows, columns, -1, self.grid, self.grid).transpose(2, 0, 3, 1, 4)
        return blocks.reshape(-1, rows * self.grid, columns * self.grid)


def patches_of(network: NetworkConfig, where: str) -> Patches:
    """The patches of a network that compresses.

    Raises
    ------
    ConfigError
        If it does not make of squares in color codes of one bit at an eighth of the resolution.
    """
    if network.output != "codes":
        raise ConfigError(f"{where}: a network that compresses must give codes, "
                          f"not {network.output}")
    last = network.operations[-1]
    if last.code_bits != 1 or network.channels != 3:
        raise ConfigError(f"{where}: a network that compresses must make codes of 1 bit from 3 "
                          f"channels, not of {last.code_bits} from {network.channels}")
    shape, side = network.shapes[last.name], network.width
    if (first := network.operations[0]).bands > 1:
        return _banded(network, first.bands, shape, where)
    if network.height != side or (STEP * shape.height, STEP * shape.width) != (side, side):
        raise ConfigError(f"{where}: a network that compresses must have square patches, with "
                          f"codes an eighth as high and wide, not {network.height}x{side} pixels "
                          f"and {shape.height}x{shape.width} codes")
    return Patches(side, shape.channels)


def _banded(network: NetworkConfig, bands: int, shape: Shape, where: str) -> Patches:
    """Of a network whose bands are the blocks of patches."""
    across, block = math.isqrt(bands), network.fold
    side, together = across * block, network.width // block
    apart = all(each.kind == "conv" and each.kernel == 1 and not each.pool
                for each in network.operations)
    bits = (side // STEP)**2
    if (across**2, block * bands, shape.size, side % STEP) != (bands, network.height,
                                                              (1, together), 0) \
            or not apart or not bits or shape.channels % bits:
        raise ConfigError(f"{where}: a network that compresses patches in bands must have a band "
                          f"for each block of a square patch of a multiple of {STEP} pixels, and "
                          f"nothing but 1x1 convolutions to a multiple of {bits} channels")
    return Patches(side, shape.channels // bits, together, block)
