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

    `encode` makes codes [N, C, grid, grid] of patches uint8 [N, side, side, 3]; default: the golden
    model.

    Raises
    ------
    ConfigError
        If the network does not compress, or the picture is too large.
    """
    height, width = pixels.shape[:2]
    check_size(height, width)
    patches = patches_of(network.config, "compress")
    cut = patches.cut(pixels)
    codes = encode(cut) if encode else golden_codes(network, cut)
    return Picture(height, width, patches, network.digest, codes)


def golden_codes(network: Network, patches: np.ndarray) -> np.ndarray:
    """Codes of patches uint8 [N, side, side, 3]."""
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
