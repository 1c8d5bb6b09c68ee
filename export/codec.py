"""Compression patch by patch: what an encoder and its decoder agree on, and how they are trained.

A picture is cut into patches, each of which the engine makes a map of one-bit codes of. The codes
of all patches, side by side, are one map again, an eighth as high and wide as the picture.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from export.checked import ConfigError, Frozen, Rate, Share, Steps, check_phases, count
from export.network import NetworkConfig

STEP = 8  # pixels per code, each way


class DecoderConfig(Frozen):
    """Widths of a decoder, :mod:`model.decoder`; its other sizes follow from the encoder."""

    width: count(1024) = 96  # channels at an eighth of the resolution
    blocks: count(64) = 4  # pairs of convolutions there
    fine_width: count(1024) = 48  # ... and at a quarter
    fine_blocks: count(64) = 2
    alone: bool = False  # for comparison: each patch is decoded as if there were no others


class CodecConfig(Frozen):
    """The recipe of an encoder and its decoder; :mod:`model.codec` says what it does with it."""

    decoder: DecoderConfig = DecoderConfig()
    # For comparison, which cannot be exported: bits are the signs of linear functions of the patch.
    encoder: Literal["network", "linear"] = "network"
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
        check_phases(self, "float_steps", "code_steps")
        return self


@dataclass(frozen=True)
class Patches:
    """Squares of `side` pixels, and the codes of each: `channels` maps of `grid` x `grid` bits."""

    side: int
    channels: int

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
    if network.height != side or (STEP * shape.height, STEP * shape.width) != (side, side):
        raise ConfigError(f"{where}: a network that compresses must have square patches, with "
                          f"codes an eighth as high and wide, not {network.height}x{side} pixels "
                          f"and {shape.height}x{shape.width} codes")
    return Patches(side, shape.channels)
