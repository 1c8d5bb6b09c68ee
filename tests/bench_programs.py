"""What a bench loads into a machine: a network as an image, frames, and what they should give."""

from pathlib import Path

import numpy as np

from export.file import load_network
from export.host import Class
from export.image import Image
from sim import golden
from sim.results import wanted
from sim.samples import random_images


class Program:
    """`NAME.hxi` and `NAME.npz` of a folder, with two random frames."""

    def __init__(self, folder: Path, name: str):
        self.image = Image.load(folder / f"{name}.hxi")
        self.network = load_network(folder / f"{name}.npz")
        self.frames = random_images(self.network.config, 2, 1)
        self.trace = golden.run(self.network, self.frames)

    def check(self, results: list):
        """Of all frames."""
        assert len(results) == len(self.frames)
        for n, result in enumerate(results):
            self.check_values((result.index, result.score) if isinstance(result, Class)
                              else result.values, n)

    def check_values(self, values, n: int):
        """Class and score, or codes or a map."""
        np.testing.assert_array_equal(values, wanted(self.network.config, self.trace, n))
