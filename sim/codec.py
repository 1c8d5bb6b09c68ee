"""Compresses a picture with the golden model, or with the generated Verilog."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from export.artifact import Network
from export.codec import patches_of
from export.config import Config
from export.cost import Cost
from export.picture import Picture, check_size
from hw.generate import generate
from sim import golden
from sim.verilog import run_frames

AT_ONCE = 256  # patches


def compress(network: Network, pixels: np.ndarray,
             encode: Callable[[np.ndarray], np.ndarray] | None = None) -> Picture:
    """The codes that the integer network makes of a picture uint8 [H, W, 3].

    `encode` makes what the network gives of frames uint8 [N, H, W, 3]; default: the golden model.

    Raises
    ------
    ConfigError
        If the network does not compress, or the picture is too large.
    """
    height, width = pixels.shape[:2]
    check_size(height, width)
    patches = patches_of(network.config, "compress")
    cut = patches.cut(pixels)
    frames = patches.frames(cut)
    maps = encode(frames) if encode else golden_codes(network, frames)
    return Picture(height, width, patches, network.digest, patches.codes(maps, len(cut)))


def golden_codes(network: Network, patches: np.ndarray) -> np.ndarray:
    """Codes of the frames of patches."""
    name = network.config.operations[-1].name
    return np.concatenate([golden.run(network, patches[k:k + AT_ONCE]).codes[name]
                           for k in range(0, len(patches), AT_ONCE)])


def verilog_codes(design: Config, network: Network, patches: np.ndarray,
                  folder: Path) -> np.ndarray:
    """The same as they leave the engine's port; `folder` is where it is generated.

    Raises
    ------
    RuntimeError
        If the simulator fails.
    """
    design = design.alone
    generate(design, network, folder)
    cost = Cost.of(design)
    frames = run_frames(cost.program, cost.hardware, folder, patches, progress=True)
    return np.stack(frames.results)
