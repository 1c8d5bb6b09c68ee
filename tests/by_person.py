"""Whom a network that reads gestures understands: how often it is right of each person.

    python -m tests.by_person configs/billnet.toml [weights/billnet.npz]

The clips are the first 2,600 of validation. Who wears gloves has hands in any color: see
docs/video.md.
"""

import sys
from collections import defaultdict

import numpy as np

from export.config import load_config
from export.file import load_network
from model.clip_train import Drawn
from model.gestures import performer, who
from sim.evaluate import scores_of_clips

CLIPS, SPLIT = 2600, "validation"


def main(path: str, weights: str = ""):
    """Prints what the golden model finds, the worst person first."""
    config = load_config(path)
    source = Drawn(config.network, config.clips, SPLIT)
    network = load_network(weights or f"weights/{config.name}.npz")
    scores, labels = scores_of_clips(network, source, range(CLIPS))
    right = defaultdict(list)
    for index, good in enumerate(scores.argmax(1) == labels):
        right[who(SPLIT, index)].append(good)
    people = {number: performer(SPLIT, number) for number in right}
    gloves = {number for number, each in people.items() if (each.skin != each.face).any()}
    print("| person | hands | RGB | clips | right |", "|---|---|---|---|---|", sep="\n")
    for number, found in sorted(right.items(), key=lambda each: np.mean(each[1])):
        color = ", ".join(f"{value:.0f}" for value in people[number].skin)
        print(f"| {number} | {'gloves' if number in gloves else 'bare'} | {color} | {len(found)} | "
              f"{np.mean(found):.1%} |")
    for hands, some in ("gloves", gloves), ("bare", right.keys() - gloves):
        found = np.concatenate([right[number] for number in some])
        print(f"{hands}: {len(some)} people, {len(found)} clips, {found.mean():.2%} right")


if __name__ == "__main__":
    main(*sys.argv[1:])
