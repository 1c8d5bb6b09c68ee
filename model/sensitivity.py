"""How much each layer's weight precision costs.

Takes the float teacher of a training, rounds the weights of one layer at a time to 1, 2 and 3 bits,
calibrates, and measures the validation loss. From these it chooses a precision for every layer: the
smallest sum of the losses' increases with no more weight bits than the design has now.
"""

import itertools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from export.config import Config, ConfigError
from export.words import operands, stored_bits
from model.convert import fill, load_state
from model.network import Encoder, calibrate
from model.train import QUICK, load_tensors

BITS = 1, 2, 3


@torch.no_grad()
def loss_of(encoder: Encoder, images: Tensor, labels: Tensor, batch: int = 250) -> float:
    """Mean cross-entropy in evaluation mode."""
    total = 0.0
    for x, y in zip(images.split(batch), labels.split(batch), strict=True):
        logits = encoder.head.logits(encoder(x.float()))
        total += F.cross_entropy(logits, y, reduction="sum").item()
    return total / len(labels)


def measure(encoder: Encoder, images: Tensor, held: Tensor, labels: Tensor) -> np.ndarray:
    """Increase of the loss [layers, 3] if one layer's weights have 1, 2 or 3 bits.

    `encoder` computes with real weights; `images` are for its statistics.
    """
    calibrate(encoder, images)
    base = loss_of(encoder, held, labels)
    parts = [*encoder.convs, encoder.head]
    found = np.zeros((len(parts), len(BITS)))
    for (k, part), (j, bits) in tqdm(list(itertools.product(enumerate(parts), enumerate(BITS)))):
        kept = part.bits
        part.bits, part.round_weights = bits, True
        calibrate(encoder, images)
        found[k, j] = loss_of(encoder, held, labels) - base
        part.bits, part.round_weights = kept, False
    return found


def choose(increase: np.ndarray, cost: np.ndarray, budget: float) -> list[int]:
    """Bits of each layer: least total increase whose total cost is within the budget.

    Exact, by dynamic programming over the points that no other one is better than.
    """
    front = [(0.0, 0.0, [])]
    for gains, costs in zip(increase, cost, strict=True):
        points = sorted((spent + c, lost + g, [*bits, b]) for spent, lost, bits in front
                        for g, c, b in zip(gains, costs, BITS, strict=True)
                        if spent + c <= budget)
        front = []
        for point in points:
            if not front or point[1] < front[-1][1]:
                front.append(point)
    if not front:
        raise ConfigError(f"no precisions fit into {budget:.0f} bits")
    return front[-1][2]


def costs(encoder: Encoder, words: int, dense: bool) -> np.ndarray:
    """Stored bits [layers, 3] of the weights in three-bit words, without unused lanes."""
    per_weight = [stored_bits(3, bits, words, dense) / operands(3, words) for bits in BITS]
    return np.array([[part.weight.numel() * bits for bits in per_weight]
                     for part in [*encoder.convs, encoder.head]])


def table(design: Config, checkpoint: Path) -> Table:
    """What each layer's precision costs, and the precisions that cost least, as a table.

    Raises
    ------
    ConfigError
        If `checkpoint` is not one of a training with a teacher.
    """
    state = load_state(checkpoint)
    if not isinstance(state, dict) or not isinstance(state.get("teacher"), dict):
        raise ConfigError(f"{checkpoint}: is no checkpoint of a training whose teacher is done")
    encoder = Encoder(design.network, design.train)
    fill(encoder, state["teacher"], checkpoint)
    encoder.quantize(weights=False, codes=False)
    images, _ = load_tensors(design.network, "train")
    increase = measure(encoder, images[:QUICK], *load_tensors(design.network, "validation"))
    cost = costs(encoder, design.array.words, design.array.dense)
    parts = [*encoder.convs, encoder.head]
    now = [part.bits for part in parts]
    best = choose(increase, cost, sum(row[bits - 1] for row, bits in zip(cost, now, strict=True)))
    found = Table(title="increase of the validation loss, one layer at a time")
    for column in ("layer", "weights", "1 bit", "2 bits", "3 bits", "now", "best"):
        found.add_column(column, justify="left" if column == "layer" else "right")
    for part, row, was, is_best in zip(parts, increase, now, best, strict=True):
        found.add_row(part.layer.name, f"{part.weight.numel():,}",
                      *(f"{value:+.3f}" for value in row), str(was), str(is_best))
    return found
