"""Seeded networks and images for tests and simulations, made without training."""

import numpy as np

from export.artifact import ALPHABET, MAX_SHIFT, Layer, Network
from export.automaton import cells, generated
from export.config import NetworkConfig
from sim.golden import activate, conv, gate, pool, summed


def random_images(config: NetworkConfig, count: int, seed: int) -> np.ndarray:
    """Uniform noise, uint8 [count, H, W, C]."""
    shape = (count, config.height, config.width, config.channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def random_network(config: NetworkConfig, seed: int) -> Network:
    """Uniform weights; shifts and biases such that random images use every code of every layer.

    The codes of a layer are chosen from its sums on random images, so that one layer after the
    other sees well spread inputs, and all classes come up.
    """
    rng = np.random.default_rng(seed)
    count = int(np.clip(4096 // (config.height * config.width), 16, 256))
    x = random_images(config, count, seed).transpose(0, 3, 1, 2)
    layers, maps, pad = [], [], config.pad
    for index, (layer, source) in enumerate(zip(config.layers, config.shapes, strict=False)):
        shape = (layer.channels, source.channels // layer.groups, layer.kernel, layer.kernel)
        weight = rng.choice(np.array(ALPHABET[layer.weight_bits], np.int8), shape)
        extra = {}
        if layer.generator is not None:
            extra["seed"] = rng.integers(0, 2, cells(layer)).astype(np.uint8)
            weight = generated(layer, extra["seed"], source.channels)[:, :, None, None]
        skip = config.skip_source(index) if layer.skip else None
        if layer.selects:  # passes every channel for half of the images
            choice = rng.choice(np.array(ALPHABET[layer.select_bits], np.int8),
                                (layer.channels, config.shapes[skip + 1].channels))
            sums = summed(choice, np.zeros(layer.channels, np.int32), maps[skip])
            extra |= {"select_weight": choice,
                      "select_bias": -np.median(sums, 0).round().astype(np.int32)}
        plain = Layer(layer, weight, np.zeros(layer.channels, np.int32), 0, **extra)
        acc = conv(plain, x, pad)
        sums = pool(acc) if layer.pool else acc
        mean = sums.mean((0, 2, 3))
        spread = np.sqrt(np.square(sums - mean[:, None, None]).mean())
        # A standard deviation of a quarter of the codes fills them all and clips at both ends.
        codes = 2**layer.code_bits
        shift = int(np.clip(round(np.log2(max(spread, 1) / (codes / 4))), 0, MAX_SHIFT))
        middle = 2**shift * codes / 2
        bias = middle - mean + rng.uniform(-0.5, 0.5, layer.channels) * 2**shift
        layers.append(Layer(layer, weight, np.round(bias).astype(np.int32), shift, **extra))
        codes = activate(layers[-1], acc)
        if layer.gate:
            codes = gate(layers[-1], codes, maps[skip], config.layers[skip].code_bits)
        x, pad = pool(codes) if layer.pool else codes, 0
        maps.append(x)
    alphabet = np.array(ALPHABET[config.classifier_bits], np.int8)
    weight = rng.choice(alphabet, (config.classes, config.shapes[-1].channels))
    scores = x.sum((2, 3), dtype=np.int64) @ weight.T.astype(np.int64)
    return Network(config, tuple(layers), weight, np.round(-scores.mean(0)).astype(np.int32))


def extreme_network(config: NetworkConfig, weight_value: int) -> Network:
    """Every weight `weight_value`, clipped to its alphabet; no shift.

    The biases make every code the largest one, whatever the image. So white images bring the
    first layer's sums, and any images those of all other layers, to their end of the range.
    """
    layers, peak = [], 255
    for layer, source in zip(config.layers, config.shapes, strict=False):
        shape = (layer.channels, source.channels // layer.groups, layer.kernel, layer.kernel)
        weight = _nearest(weight_value, layer.weight_bits)
        lowest = min(0, weight) * peak * int(np.prod(shape[1:]))
        peak = 2**layer.code_bits - 1
        layers.append(Layer(layer, np.full(shape, weight, np.int8),
                            np.full(layer.channels, peak - lowest, np.int32), 0))
    weight = np.full((config.classes, config.shapes[-1].channels),
                     _nearest(weight_value, config.classifier_bits), np.int8)
    return Network(config, tuple(layers), weight, np.zeros(config.classes, np.int32))


def _nearest(value: int, bits: int) -> int:
    return min(ALPHABET[bits], key=lambda allowed: abs(allowed - value))
