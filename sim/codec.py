"""Compresses a picture with the golden model."""

import numpy as np

from export.artifact import Network
from export.codec import patches_of
from export.picture import Picture, check_size
from sim import golden

AT_ONCE = 256  # patches


def compress(network: Network, pixels: np.ndarray) -> Picture:
    """The codes that the integer network makes of a picture uint8 [H, W, 3].

    Raises
    ------
    ConfigError
        If the network does not compress, or the picture is too large.
    """
    height, width = pixels.shape[:2]
    check_size(height, width)
    patches = patches_of(network.config, "compress")
    cut = patches.cut(pixels)
    name = network.config.operations[-1].name
    codes = [golden.run(network, cut[k:k + AT_ONCE]).codes[name]
             for k in range(0, len(cut), AT_ONCE)]
    return Picture(height, width, patches, network.digest, np.concatenate(codes))
