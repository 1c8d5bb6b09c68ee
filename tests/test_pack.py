"""ROM images against the golden sums, read back without the packer's help."""

from dataclasses import replace

import numpy as np
import pytest

from export.artifact import Network
from export.config import ConfigError, load_config, parse_config
from export.cost import Cost
from export.descriptor import FIELDS, layer_fields, tile_fields
from export.file import load_network
from export.hardware import Hardware
from export.pack import folded_bias, pack, weight_images
from export.program import Program
from export.words import stored_weights
from sim.samples import random_network


def design(layers, array, channels=3, dense=False, **network):
    rows, columns, words, precisions = array
    return parse_config({
        "name": "test",
        "network": {"height": 6, "width": 5, "channels": channels, "classes": 3,
                    "layers": [{"name": f"layer{k}", **layer} for k, layer in enumerate(layers)],
                    **network},
        "array": {"rows": rows, "columns": columns, "words": words, "precisions": precisions,
                  "dense": dense}})


def conv(channels, weight_bits, code_bits, **more):
    return {"channels": channels, "weight_bits": weight_bits, "code_bits": code_bits, **more}


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
    ([conv(8, 3, 2), conv(9, 2, 1), conv(12, 1, 1)], (4, 4, 4, (1, 2, 3)), 3),
    ([conv(8, 3, 3, groups=2), conv(12, 2, 1, groups=4), conv(12, 1, 1, groups=3)],
     (2, 3, 1, (1, 2, 3)), 4),
    ([conv(5, 2, 2), conv(7, 1, 1, kernel=1)], (3, 2, 3, (3,)), 1),
])
@pytest.mark.parametrize("dense", [False, True])
def test_every_weight_is_stored_once_and_nothing_else(layers, array, channels, dense):
    """Sums of |w| and of w per channel, found in the memories, are the layer's."""
    config = design(layers, array, channels, dense)
    network = random_network(config.network, 1)
    program = Program(config)
    images = weight_images(program, Hardware.of([program]), network)
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
    config = design([conv(8, 3, 3), conv(6, 3, 2)], (4, 4, 4, (1, 2, 3)))
    network = random_network(config.network, 1)
    layer, plain = Program(config).layers[1], network.layers[1]
    codes = np.random.default_rng(1).integers(0, 8, (6, 8, 3, 3))
    raw = np.where(plain.weight < 0, -plain.weight * (7 - codes), plain.weight * codes)
    folded = folded_bias(layer, plain)
    np.testing.assert_array_equal(raw.sum((1, 2, 3)) + folded,
                                  (plain.weight * codes).sum((1, 2, 3)) + plain.bias)


@pytest.mark.parametrize("dense, wanted", [(False, (8, 8, 8)), (True, (8, 5, 6))])
def test_counted_bits_are_the_stored_ones(dense, wanted):
    """Words are as wide as the layer's weights, and only layers with wide words pay for them."""
    layers = [conv(8, 3, 3), conv(8, 2, 3), conv(8, 1, 3)]
    config = design(layers, (4, 4, 4, (1, 2, 3)), dense=dense)
    cost = Cost.of(config)
    program, hardware = cost.program, cost.hardware
    roms = pack(program, hardware, random_network(config.network, 1))
    assert tuple(np.diff(hardware.weight_edges)) == wanted
    steps = [layer.weight_steps for layer in program.layers]
    assert [len(rom) for rom in roms.weights] == [sum(steps), sum(steps) - steps[2],
                                                  steps[0] + steps[3]]
    bits = cost.stored_bits
    assert bits["weights"] == sum(len(rom) * 4 * width for rom, width
                                  in zip(roms.weights, wanted, strict=True))
    assert bits["biases"] == len(roms.biases) * 4 * hardware.score_bits
    assert bits["program"] == (
        sum(layer_fields(hardware).values()) * len(roms.layers)
        + sum(tile_fields(hardware).values()) * len(roms.tiles))
    assert cost.total_bits == sum(bits.values())
    for rom, width in zip(roms.weights, wanted, strict=True):
        assert max(value.bit_length() for value in rom) <= width * 4


def test_the_shipped_network_takes_less_than_a_megabit():
    cost = Cost.of(load_config("configs/megabit.toml"))
    pack(cost.program, cost.hardware, load_network("weights/megabit.npz"))
    assert 950_000 < cost.total_bits <= 1_000_000


def pack_alone(config, network):
    program = Program(config)
    return pack(program, Hardware.of([program]), network)


def test_descriptors_read_back_as_their_table_says():
    """A gate of each kind, a concatenation, generated weights: every field is there."""
    config = design([
        conv(8, 3, 3, pool=True), conv(8, 2, 3, kernel=1),
        conv(8, 2, 2, kernel=1, inputs=["layer0", "layer1"]),
        conv(8, 2, 2, kernel=1, skip="layer1", gate="mux",
             generator={"outputs": 4, "inputs": 18, "mapping": "quarter"})],
        (4, 4, 6, (1, 2, 3)))
    network, program = random_network(config.network, 1), Program(config)
    hardware = Hardware.of([program])
    fields = layer_fields(hardware)
    assert list(fields) == [field.name for field in FIELDS]
    words = pack(program, hardware, network).layers
    for word, op, layer in zip(words, program.layers, network.layers, strict=True):
        for field in FIELDS:
            width = fields[field.name]
            assert word & (1 << width) - 1 == int(field.value(hardware, op, layer)), field.name
            word >>= width
        assert word == 0


def test_another_network_is_refused():
    config = design([conv(8, 3, 3)], (4, 4, 4, (1, 2, 3)))
    other = design([conv(9, 3, 3)], (4, 4, 4, (1, 2, 3)))
    with pytest.raises(ConfigError, match=r"^test: the artifact's network differs from the "
                                          r"configuration's: wanted layer0 .*channels=8"):
        pack_alone(config, random_network(other.network, 1))


def test_overflowing_bias_is_refused():
    config = design([conv(8, 3, 3)], (4, 4, 4, (1, 2, 3)))
    network = random_network(config.network, 1)
    layer = network.layers[0]
    bias = layer.bias.copy()
    bias[3] = Cost.of(config).hardware.bias_peak + 1
    network = Network(network.config, (replace(layer, bias=bias), network.layers[1]))
    with pytest.raises(ConfigError, match=r"^layer0: accumulator could overflow: "
                                          r"wanted \|bias\| <= 32768, got 32769$"):
        pack_alone(config, network)


def test_missing_precision_is_refused():
    with pytest.raises(ConfigError, match=r"^layer0: needs words of 3 bits, the array has "
                                          r"precisions \[1, 2\]$"):
        Program(design([conv(8, 3, 3)], (4, 4, 4, (1, 2))))
