"""Makes an encoder of transforms: all its layers, of which only those that choose are trained.

The first layer has the vectors of all classes, and the mean. Others choose a class; what is not of
it is covered by an OR gate, so that sums over the classes leave its coefficients alone. From these
come, by thresholds, the bits.
"""

import numpy as np
import torch
from torch import Tensor

from export.artifact import Layer, Network
from export.checked import ConfigError
from export.network import PIXELS, ConvConfig, NetworkConfig
from export.transforms import BLOCK, TransformsConfig
from model.allocator import keep_freed
from model.chooser import Chooser, train_chooser
from model.mixture import SHIFT, integers, mixture, moments, rounded, weights_of
from model.tables import Tables

SCORES = 3  # codes whose sum is a class's score
COPIES = 2  # of what says that a class is chosen
STEPS = 6000  # of training the choice


def block_order(patches: np.ndarray, block: int) -> np.ndarray:
    """Patches [n, side, side, 3] as vectors [n, pixels], block after block, as bands are read."""
    n, side, _, channels = patches.shape
    cut = patches.reshape(n, side // block, block, side // block, block, channels)
    return cut.swapaxes(2, 3).reshape(n, -1)


def widths(config: TransformsConfig) -> dict[str, int]:
    """Channels of each operation whose weights follow from the transforms, by name."""
    ramps = [each.count for each in config.fields]
    first = config.classes * sum(ramps[1:]) + ramps[0]
    return {"first": first, "scores": SCORES * config.classes,
            "wins": config.classes * (config.classes - 1) // 2, "class": COPIES * config.classes,
            "chosen": first, "slots": sum(ramps),
            "levels": sum(len(each.thresholds) for each in config.fields), "codes": config.bits}


def check(network: NetworkConfig, config: TransformsConfig):
    """ConfigError if the network is not one of these transforms."""
    if network.fold != BLOCK:
        raise ConfigError(f"fold must be {BLOCK} in an encoder of transforms, not {network.fold}")
    three, one = {"weight_bits": 2, "code_bits": 3}, {"weight_bits": 2, "code_bits": 1}
    wanted = {"first": three | {"inputs": (PIXELS,)}, "scores": {},
              "wins": one | {"inputs": ("scores",)},
              "class": {"inputs": ("wins",), "weight_bits": 3, "code_bits": 3},
              "chosen": {"inputs": ("class",), "weight_bits": 3, "code_bits": 3, "gate": "or",
                         "skip": "first"},
              "slots": three | {"inputs": ("chosen",)}, "levels": one | {"inputs": ("slots",)},
              "codes": one | {"inputs": ("class", "levels")}}
    for name, channels in widths(config).items():
        for field, value in {"channels": channels, **wanted[name]}.items():
            if (came := getattr(network.by_name.get(name), field, None)) != value:
                raise ConfigError(f"{name}: an encoder of these transforms must have an operation "
                                  f"of this name with {field} = {value}, not {came}")


def first_layer(patches: Tensor, pictures: Tensor,
                config: TransformsConfig) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Weights and biases, of each class and slot its ramps, then those of the mean; and the class
    of each patch. `pictures` (n,) says which each patch is of."""
    found, chosen, weights = mixture(patches - patches.mean(1, keepdim=True), pictures, config)
    rows, biases = [], []

    def add(weight: np.ndarray, middle: float, offset: float, count: int):
        for ramp in range(count):
            rows.append(weight)
            biases.append(round((middle - 7 * ramp) * 2**SHIFT - offset))

    for k, transform in enumerate(found):
        middle, square = moments(patches[chosen == k], weights[chosen == k])
        made = integers(transform, square, config)
        for weight, ramps in zip(made, config.fields[1:], strict=True):
            add(weight, ramps.middle, float(middle.double().numpy() @ weight), ramps.count)
    mean = config.fields[0]
    scale = 2**SHIFT * mean.levels / 256 / patches.shape[1]
    _, square = moments(patches, weights)
    add(rounded(np.full((1, patches.shape[1]), scale), square.numpy())[0], 0, 0, mean.count)
    return np.array(rows), np.array(biases), chosen


def codes_of(patches: Tensor, weight: np.ndarray, bias: np.ndarray) -> Tensor:
    """Codes uint8 of the first layer, of patches with pixels as integers."""
    sums = patches @ torch.from_numpy(weight.T).float() + torch.from_numpy(bias).float()
    return (sums / 2**SHIFT).floor().clamp(0, 7).to(torch.uint8)


def _pairs(classes: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(classes) for j in range(i + 1, classes)]


def logic(config: TransformsConfig) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of the layers behind the scores, by name."""
    size, classes = widths(config), config.classes
    class_of = np.repeat(np.arange(classes), sum(each.count for each in config.fields[1:]))
    wins, ones = np.zeros((size["wins"], size["scores"])), np.zeros((classes, size["wins"]))
    for k, (i, j) in enumerate(_pairs(classes)):
        wins[k, SCORES * i:SCORES * (i + 1)] = 1
        wins[k, SCORES * j:SCORES * (j + 1)] = -1
        ones[i, k], ones[j, k] = 2, -2
    lost = (ones > 0).sum(1)  # comparisons whose 1 means that it won; all others are 0 then
    chosen = np.zeros((size["chosen"], size["class"]))
    covered = np.zeros(size["chosen"])
    for channel, k in enumerate(class_of):
        chosen[channel, COPIES * k:COPIES * (k + 1)] = -2
        covered[channel] = 7
    per_class = len(class_of) // classes
    slots = np.zeros((size["slots"], size["chosen"]))
    mean = config.fields[0].count
    for k in range(classes):
        slots[mean + np.arange(per_class), k * per_class + np.arange(per_class)] = 1
    slots[np.arange(mean), len(class_of) + np.arange(mean)] = 1
    levels, ends, codes = [], [], np.zeros((size["codes"], size["class"] + size["levels"]))
    for bit in range(config.class_bits):
        picked = np.arange(classes) >> (config.class_bits - 1 - bit) & 1
        codes[bit, :size["class"]:COPIES] = picked
    at = 0
    for field, ramps in enumerate(config.fields):
        sees = np.zeros(size["slots"])
        sees[at:at + ramps.count] = 1
        at += ramps.count
        for k, threshold in enumerate(ramps.thresholds):
            changes = ramps.gray[k + 1].astype(int) - ramps.gray[k]
            for position, (of, bit) in enumerate(config.order):
                if of == field:
                    codes[config.class_bits + position, size["class"] + len(levels)] = changes[bit]
            levels.append(sees)
            ends.append(1 - threshold)
    return {"wins": (wins, np.ones(len(wins))),
            "class": (ones.repeat(COPIES, 0), (2 - 2 * lost).repeat(COPIES)),
            "chosen": (chosen, covered),
            "slots": (slots, np.where(np.arange(len(slots)) < mean, 0, -7 * (classes - 1))),
            "levels": (np.array(levels), np.array(ends)), "codes": (codes, np.zeros(len(codes)))}


def encoder_of(network: NetworkConfig, config: TransformsConfig, patches: np.ndarray,
               pictures: np.ndarray, seed: int = 1) -> Network:
    """A network that compresses; only the first of its layers, and those that choose, are learned.

    `patches` uint8 [n, side, side, 3] are what it learns from, `pictures` [n] which each is of.

    Raises
    ------
    ConfigError
        If the network is not one of these transforms.
    """
    check(network, config)
    keep_freed()
    first = network.operations[0]
    x = torch.from_numpy(block_order(patches, network.fold)).float()
    of = torch.from_numpy(pictures)
    weight, bias, chosen = first_layer(x, of, config)
    codes = codes_of(x, weight, bias)
    tables = Tables(config, x.shape[1])
    tables.fit(x, codes, chosen)
    tables.fit(x, codes, tables.errors(x, codes).argmin(1))
    errors = tables.errors(x, codes)
    between = network.operations[1:network.operations.index(network.by_name["scores"]) + 1]
    chooser = Chooser(list(between), first.channels, config.classes)
    weights = weights_of(errors.min(1).values / x.shape[1], of)
    train_chooser(chooser, codes, errors, weights, STEPS, seed)

    def layer(operation: ConvConfig, weight, bias, shift: int) -> Layer:
        return Layer(operation, np.asarray(weight, np.int8)[:, :, None, None],
                     np.asarray(bias, np.int32), shift)

    layers = [layer(first, weight, bias, SHIFT)]
    layers += [layer(part.layer, part.levels().detach()[:, :, 0, 0], part.integer_bias().detach(),
                     int(part.shift)) for part in chooser.parts]
    made = logic(config)
    layers += [layer(network.by_name[name], *made[name], 0) for name in
               ("wins", "class", "chosen", "slots", "levels", "codes")]
    return Network(network, tuple(layers), {"patches": len(patches), "seed": seed})


def fit_tables(tables: Tables, network: Network, patches: np.ndarray, bits: Tensor):
    """Fits what the bits (n, bits) mean that a network makes of patches uint8 [n, side, side, 3].
    """
    x = torch.from_numpy(block_order(patches, network.config.fold)).float()
    first, width = network.layers[0], tables.config.class_bits
    codes = codes_of(x, first.weight[:, :, 0, 0].copy(), first.bias.copy())
    tables.fit(x, codes, bits[:, :width].long() @ 2 ** torch.arange(width).flip(0))
