"""Seeded networks and images for tests and simulations, made without training."""

from dataclasses import replace

import numpy as np

from export.artifact import ALPHABET, MAX_SHIFT, Layer, Network, kernel_shape
from export.automaton import cells, generated
from export.network import NetworkConfig, Operation, walk
from sim.golden import (
    activate,
    begin,
    cell,
    conv,
    fold,
    gate,
    joined,
    pool,
    summed,
    values,
    vector,
)


def random_images(config: NetworkConfig, count: int, seed: int) -> np.ndarray:
    """Uniform noise, uint8 [count, H, W, C]."""
    shape = (count, config.height, config.width, config.channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def random_clips(config: NetworkConfig, lengths: list[int], seed: int) -> list[np.ndarray]:
    """Uniform noise, a clip uint8 [T, H, W, C] of each length."""
    ends = np.cumsum(lengths)
    return np.split(random_images(config, int(ends[-1]), seed), ends[:-1])


def random_network(config: NetworkConfig, seed: int) -> Network:
    """Uniform weights; shifts and biases such that random images use every code of every layer.

    The codes of a layer are chosen from its sums on random images, so that one layer after the
    other sees well spread inputs. All classes come up, a mux passes each channel for half of them.
    Of clips, every operation is run over whole ones, and maps are [N T, C, H, W].
    """
    rng = np.random.default_rng(seed)
    count = int(np.clip(4096 // (config.height * config.width), 16, 256))
    frames = max(4, 2 * config.period) if config.timed else 1  # of a clip
    count = max(1, count // frames)
    layers = []

    def apply(operation: Operation, inputs, skip, sums):
        inputs = [_at_clock(config, operation, name, x, count)
                  for name, x in zip(operation.inputs, inputs, strict=True)]
        x = joined(inputs, operation.bands)
        weight, extra = _random_weight(operation, x.shape[1], rng), {}
        if operation.generator is not None:
            extra["seed"] = rng.integers(0, 2, cells(operation)).astype(np.uint8)
            weight = generated(operation, extra["seed"], x.shape[1])[:, :, None, None]
        plain = Layer(operation, weight, np.zeros(operation.filters, np.int32), 0, **extra)
        if operation.kind == "cell":
            layers.append(_random_cell(plain, x, rng))
            return _run_cell(layers[-1], x, count)
        if operation.kind == "sum" and operation.makes_codes:
            totals = summed(plain, x)
            layers.append(_placed(plain, totals[:, :, None, None], 2**operation.code_bits, rng))
            return vector(layers[-1], x)
        if operation.kind == "sum":
            totals = summed(plain, x)
            middle = np.mean(totals, 0) if operation.output == "class" else np.median(totals, 0)
            layers.append(Layer(operation, weight, -middle.round().astype(np.int32)))
            return totals + layers[-1].bias
        acc = conv(plain, x, config.pad_of(operation))
        signed = operation.kind == "map"
        pooled = pool(acc) if not signed and operation.pool else acc
        codes = 2**(operation.out_bits if signed else operation.code_bits)
        layers.append(_placed(plain, pooled, codes, rng, 0 if signed else codes / 2))
        if signed:
            return values(layers[-1], acc)
        codes = activate(layers[-1], acc)
        if operation.gate:
            codes = gate(operation, codes, skip, config.by_name[operation.skip].code_bits, sums)
        return pool(codes) if operation.pool else codes

    walk(config, fold(random_images(config, count * frames, seed), config.fold), apply)
    return Network(config, tuple(layers))


def _placed(plain: Layer, acc: np.ndarray, codes: int, rng: np.random.Generator,
            middle: float | None = None) -> Layer:
    """`plain` with the shift and biases that place its sums [N, O, H, W] in a range of `codes`."""
    middle = codes / 2 if middle is None else middle
    mean = acc.mean((0, 2, 3))
    shift = _shift(acc - mean[:, None, None], codes)
    bias = 2**shift * middle - mean + rng.uniform(-0.5, 0.5, len(mean)) * 2**shift
    return replace(plain, bias=np.round(bias).astype(np.int32), shift=shift)


def _shift(deviations: np.ndarray, codes: int) -> int:
    """A standard deviation of a quarter of the codes fills them all and clips at both ends."""
    spread = np.sqrt(np.square(deviations).mean())
    return int(np.clip(round(np.log2(max(spread, 1) / (codes / 4))), 0, MAX_SHIFT))


def _random_cell(plain: Layer, x: np.ndarray, rng: np.random.Generator) -> Layer:
    """`plain` with the shift and biases that open each gate for half of random h.

    Those of g are spread over all of c, so that it saturates at both ends.
    """
    config = plain.config
    h = rng.integers(0, 2**config.code_bits, x.shape)[..., 0, 0]
    acc = x[..., 0, 0] @ plain.weight[..., 0].T.astype(int) + h @ plain.weight[..., 1].T.astype(int)
    deviations = acc - acc.mean(0)
    g = slice(config.gates.index("g") * config.channels, -config.channels)
    shift = _shift(deviations[:, g], 2**config.value_bits)
    wide = np.full(config.filters, deviations.std())
    wide[g] = 2 ** (shift + min(config.value_bits, config.state_bits))
    bias = rng.uniform(-0.5, 0.5, config.filters) * wide - acc.mean(0)
    return replace(plain, bias=np.round(bias).astype(np.int32), shift=shift)


def _run_cell(layer: Layer, x: np.ndarray, clips: int) -> np.ndarray:
    """h of all ticks, uint8 [N T, O, 1, 1]."""
    ticks, state, found = x.reshape(clips, -1, *x.shape[1:]), begin(layer.config, clips), []
    for tick in range(ticks.shape[1]):
        state = cell(layer, ticks[:, tick], *state)
        found.append(state[0])
    return np.stack(found, 1).reshape(-1, *found[0].shape[1:])


def _at_clock(config: NetworkConfig, operation: Operation, name: str, x: np.ndarray,
              clips: int) -> np.ndarray:
    """What the operation sees of the map `name` of clips, uint8 [N T, C, H, W], at its ticks."""
    step = config.periods[operation.name] // config.periods[name]
    x = x.reshape(clips, -1, *x.shape[1:])
    if operation.frames == 1:
        return x[:, step - 1::step].reshape(-1, *x.shape[2:])
    before = np.full_like(x[:, :1], config.pad_of(operation))
    x = np.concatenate([before, before, x], 1)  # frame t is at t + 2
    taps = [x[:, step - 1 + k:x.shape[1] - 2 + k:step] for k in range(operation.frames)]
    return np.stack(taps, 3).reshape(-1, x.shape[2], operation.frames, *x.shape[3:])


def _random_weight(operation: Operation, inputs: int, rng: np.random.Generator) -> np.ndarray:
    alphabet = np.array(ALPHABET[operation.weight_bits], np.int8)
    return rng.choice(alphabet, (operation.filters, inputs // operation.groups,
                                 *kernel_shape(operation)))


def extreme_network(config: NetworkConfig, weight_value: int) -> Network:
    """Every weight `weight_value`, clipped to its alphabet; no shift.

    The biases make every code the largest one, whatever the image, and so every value of a cell.
    So white images bring the first layer's sums, and any images those of all other layers, to their
    end of the range.
    """
    layers = []
    for operation in config.operations:
        weight = min(ALPHABET[operation.weight_bits], key=lambda level: abs(level - weight_value))
        inputs = config.source(operation).channels // operation.groups
        shape = (operation.filters, inputs, *kernel_shape(operation))
        biases = np.zeros(operation.filters, np.int32)
        if operation.makes_codes:
            codes = operation.value_bits - 1 if operation.kind == "cell" else operation.code_bits
            pixels = config.source(operation).pixels if operation.kind == "sum" else 1
            reach = config.peak(operation) * int(np.prod(shape[1:])) * pixels
            biases[:] = 2**codes - 1 - min(0, weight) * reach
            if operation.kind == "cell" and operation.form == "coupled":
                biases[:operation.channels] = -max(0, weight) * reach - 1  # c is g where f is 0
        layers.append(Layer(operation, np.full(shape, weight, np.int8), biases))
    return Network(config, tuple(layers))
