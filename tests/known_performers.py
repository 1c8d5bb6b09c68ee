"""How often a network is right of gestures by the people, and in the rooms, that it was trained on.

    python -m tests.known_performers configs/billnet.toml

The clips, 650, are those that a longer training would have seen next: see docs/video.md.
"""

import sys

from export.config import load_config
from export.file import load_network
from model.clip_train import Drawn
from sim.evaluate import measure_clips, shown

CLIPS = 650


def main(path: str):
    """Prints what the golden model finds."""
    config = load_config(path)
    source = Drawn(config.network, config.clips, "train")
    network = load_network(f"weights/{config.name}.npz")
    trained = network.record["training"]["config"]["clips"]
    first = trained["steps"] * trained["batch"]
    print(shown(measure_clips(network, source, range(first, first + CLIPS))))


if __name__ == "__main__":
    main(*sys.argv[1:])
