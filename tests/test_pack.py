"""ROM images against the golden sums, read back without the packer's help."""

from dataclasses import replace

import numpy as np
import pytest

from export.config import ConfigError, load_config
from export.cost import Cost
from export.descriptor import layer_fields, tile_fields
from export.pack import folded_bias, pack, weight_images
from export.program import Program
from sim.samples import random_network
from tests.designs import conv, design, machine
from tests.words import stored_weights


def stored_steps(program, images):
    """Each layer with its weights [steps, columns, operands], put together from its segments."""
    position = [0] * len(images)
    for layer in program.layers:
        parts, width = [], 0
        for k, image in enumerate(images):
            if width < layer.stored_bits:
                parts.append(image[position[k]:position[k] + layer.weight_steps])
                position[k] += layer.weight_steps
                width += image.shape[-1]
        words = np.concatenate(parts, -1)
        assert width == layer.stored_bits == words.shape[-1]
        yield layer, stored_weights(words, layer.mode, layer.weight_bits, program.array.words,
                                    program.array.dense).astype(np.int64)
    assert position == [len(image) for image in images]


@pytest.mark.parametrize("layers, array, channels", [
    ([conv("a", 8, 3, 2), conv("b", 9, 2, 1), conv("c", 12, 1, 1)], (4, 4, 4), 3),
    ([conv("a", 8, 3, 3, groups=2), conv("b", 12, 2, 1, groups=4), conv("c", 12, 1, 1, groups=3)],
     (2, 3, 1), 4),
    ([conv("a", 5, 2, 2), conv("b", 7, 1, 1, kernel=1)], (3, 2, 3, (3,)), 1),
    ([conv("a", 5, 2, 2), conv("b", 7, 2, 3), conv("c", 8, 1, 1, inputs=["a", "b"]),
      conv("d", 6, 3, 1, groups=3, kernel=1, inputs=["b", "c"])], (3, 2, 1), 1),
])
@pytest.mark.parametrize("dense", [False, True])
def test_every_weight_is_stored_once_and_nothing_else(layers, array, channels, dense):
    """Sums of |w| and of w per channel, found in the memories, are the layer's."""
    precisions = [*array[3:], (1, 2, 3)][0]
    config = design(layers, (*array[:3], precisions, dense), channels=channels)
    network = random_network(config.network, 1)
    program, hardware = machine(config)
    images = weight_images(program, hardware, network)
    for (layer, steps), numbers in zip(stored_steps(program, images), network.layers, strict=True):
        weight = numbers.weight
        if layer.weight_bits == 1:  # lanes behind a tap's last operand are masked by the hardware
            steps = steps.reshape(-1, layer.words, *steps.shape[1:]).copy()
            steps[:, -1, :, layer.tail:] = 0
        steps = steps.reshape(layer.channel_tiles, -1, program.array.columns, steps.shape[-1])
        for found, wanted in ((steps, weight), (abs(steps), abs(weight))):
            np.testing.assert_array_equal(
                found.sum((1, 3)).flatten()[:layer.channels],
                wanted.reshape(layer.channels, -1).sum(1, dtype=np.int64), layer.name)


def test_fold_undoes_the_inversion():
    """Sum of inverted operands plus the folded bias is sum plus bias, also with padding."""
    config = design([conv("a", 8, 3, 3), conv("b", 6, 3, 2)], (4, 4, 4))
    network = random_network(config.network, 1)
    layer, plain = Program(config).layers[1], network.layers[1]
    codes = np.random.default_rng(1).integers(0, 8, (6, 8, 3, 3))
    raw = np.where(plain.weight < 0, -plain.weight * (7 - codes), plain.weight * codes)
    folded = folded_bias(layer, plain)
    np.testing.assert_array_equal(raw.sum((1, 2, 3)) + folded,
                                  (plain.weight * codes).sum((1, 2, 3)) + plain.bias)


@pytest.mark.parametrize("dense, wanted", [(False, (8, 16, 24)), (True, (8, 13, 19))])
def test_counted_bits_are_the_stored_ones(dense, wanted):
    """Words are as wide as the layer's weights, and only layers with wide words pay for them."""
    config = design([conv("a", 8, 3, 3), conv("b", 8, 2, 3), conv("c", 8, 1, 3)],
                    (4, 4, 4, (1, 2, 3), dense))
    cost = Cost.of(config)
    hardware, layers = cost.hardware, cost.program.layers
    roms = pack(cost.program, hardware, random_network(config.network, 1))
    assert tuple(bits for bits, _ in hardware.weights) == wanted
    steps = [layer.weight_steps for layer in layers]
    assert [len(rom) for rom in roms.weights] == [sum(steps), sum(steps) - steps[2],
                                                  steps[0] + steps[3]]
    widths = np.diff(hardware.weight_edges)
    bits = cost.stored_bits
    assert bits["weights"] == sum(len(rom) * 4 * width for rom, width
                                  in zip(roms.weights, widths, strict=True))
    assert bits["biases"] == len(roms.biases) * 4 * hardware.score_bits
    assert bits["program"] == (sum(layer_fields(hardware).values()) * len(roms.layers)
                               + sum(tile_fields(hardware).values()) * len(roms.tiles))
    assert cost.total_bits == sum(bits.values())
    for rom, width in zip(roms.weights, widths, strict=True):
        assert max(value.bit_length() for value in rom) <= width * 4


def test_the_shipped_network_takes_less_than_a_megabit():
    assert 950_000 < Cost.of(load_config("configs/megabit.toml")).total_bits <= 1_000_000


def test_another_network_is_refused():
    program, hardware = machine(design([conv("a", 8, 3, 3)], (4, 4, 4)))
    other = random_network(design([conv("a", 9, 3, 3)], (4, 4, 4)).network, 1)
    with pytest.raises(ConfigError, match=r"^test: the artifact's network differs from the "
                                          r"configuration's: wanted a .*channels=8"):
        pack(program, hardware, other)


@pytest.mark.parametrize("index, name, limit", [(0, "a", 32768), (1, "classifier", 16384)])
def test_overflowing_bias_is_refused(index, name, limit):
    program, hardware = machine(design([conv("a", 8, 3, 3)], (4, 4, 4)))
    network = random_network(program.config.network, 1)
    for value in (limit, -limit, limit + 1, -limit - 1):
        layers = list(network.layers)
        bias = layers[index].bias.copy()
        bias[2] = value
        layers[index] = replace(layers[index], bias=bias)
        changed = replace(network, layers=tuple(layers))
        if abs(value) == limit:
            pack(program, hardware, changed)
            continue
        with pytest.raises(ConfigError, match=rf"^{name}: accumulator could overflow: "
                                              rf"wanted \|bias\| <= {limit}, got {limit + 1}$"):
            pack(program, hardware, changed)


def test_missing_precision_is_refused():
    with pytest.raises(ConfigError, match=r"^a: needs words of 3 bits, the array has "
                                          r"precisions \[1, 2\]$"):
        Program(design([conv("a", 8, 3, 3)], (4, 4, 4, (1, 2))))
