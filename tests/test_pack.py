"""ROM images against the golden sums, read back without the packer's help."""

import numpy as np
import pytest

from export.artifact import Layer, Network
from export.config import ConfigError, parse_config
from export.pack import folded_bias, layer_fields, pack, tile_fields, weight_rows
from export.program import Program
from export.words import bit_positions, operands
from sim.samples import random_network


def design(layers, array, channels=3, **network):
    rows, columns, words, precisions = array
    return parse_config({
        "name": "test",
        "network": {"height": 6, "width": 5, "channels": channels, "classes": 3,
                    "layers": [{"name": f"layer{k}", **layer} for k, layer in enumerate(layers)],
                    **network},
        "array": {"rows": rows, "columns": columns, "words": words, "precisions": precisions}})


def conv(channels, weight_bits, code_bits, **more):
    return {"channels": channels, "weight_bits": weight_bits, "code_bits": code_bits, **more}


def stored_steps(program, rows):
    """Weights [steps, columns, operands] of every tile, decoded bit by bit from the ROM rows."""
    position, words = 0, program.array.words
    for layer in program.layers:
        ops = operands(layer.mode, words)
        for _ in layer.first_words:
            chunk = rows[position:position + layer.tile_rows].astype(np.int64)
            position += layer.tile_rows
            if layer.binary:
                chunk = chunk.reshape(layer.tile_rows, program.array.columns, layer.mode, ops)
                steps = 1 - 2 * chunk.transpose(0, 2, 1, 3).reshape(-1, program.array.columns, ops)
            else:
                bits = [chunk[:, :, place] for place in bit_positions(layer.mode, words)]
                steps = (bits[0] + (2 * bits[1] if layer.mode == 3 else 0)) * (1 - 2 * bits[-1])
            yield layer, steps[:layer.steps]
    assert position == len(rows)


@pytest.mark.parametrize("layers, array, channels", [
    ([conv(8, 3, 2), conv(9, 2, 1), conv(12, 1, 1)], (4, 4, 4, (1, 2, 3)), 3),
    ([conv(8, 3, 3, groups=2), conv(12, 2, 1, groups=4), conv(12, 1, 1, groups=3)],
     (2, 3, 1, (1, 2, 3)), 4),
    ([conv(5, 2, 2), conv(7, 1, 1, kernel=1)], (3, 2, 3, (3,)), 1),
])
def test_every_weight_is_stored_once_and_nothing_else(layers, array, channels):
    """Sums of |w| and of w per channel, found in the rows, are the layer's."""
    config = design(layers, array, channels)
    network = random_network(config.network, 1)
    program = Program(config)
    found = {}
    for layer, steps in stored_steps(program, weight_rows(program, network)):
        if layer.binary:  # lanes behind the last operand of a tap are masked by the hardware
            steps = steps.reshape(-1, layer.words, *steps.shape[1:]).copy()
            steps[:, -1, :, layer.tail:] = 0
        steps = steps.reshape(-1, program.array.columns, steps.shape[-1])
        found.setdefault(layer.name, []).append((steps.sum((0, 2)), np.abs(steps).sum((0, 2))))
    weights = [layer.weight for layer in network.layers] + [network.classifier_weight]
    for layer, weight in zip(program.layers, weights, strict=True):
        for k, values in enumerate((weight, np.abs(weight))):
            stored = np.concatenate([tile[k] for tile in found[layer.name]])[:layer.channels]
            np.testing.assert_array_equal(
                stored, values.reshape(layer.channels, -1).sum(1, dtype=np.int64), layer.name)


def test_fold_undoes_the_inversion():
    """Sum of inverted operands plus the folded bias is sum plus bias, also with padding."""
    config = design([conv(8, 3, 3), conv(6, 3, 2)], (4, 4, 4, (1, 2, 3)))
    network = random_network(config.network, 1)
    layer, plain = Program(config).layers[1], network.layers[1]
    codes = np.random.default_rng(1).integers(0, 8, (6, 8, 3, 3))
    raw = np.where(plain.weight < 0, -plain.weight * (7 - codes), plain.weight * codes)
    folded = folded_bias(layer, plain.weight, plain.bias)
    np.testing.assert_array_equal(raw.sum((1, 2, 3)) + folded,
                                  (plain.weight * codes).sum((1, 2, 3)) + plain.bias)


def test_counted_bits_are_the_stored_ones():
    config = design([conv(8, 3, 3), conv(6, 3, 2)], (4, 4, 4, (1, 2, 3)))
    program, roms = pack(config, random_network(config.network, 1))
    assert roms.bits["weights"] == len(roms.weights) * 24 * 4
    assert roms.bits["program"] == (
        sum(layer_fields(program).values()) * len(roms.layers)
        + sum(tile_fields(program).values()) * len(roms.tiles))
    assert roms.total_bits == sum(roms.bits.values())
    assert max(value.bit_length() for value in roms.weights) <= 24 * 4


def test_another_network_is_refused():
    config = design([conv(8, 3, 3)], (4, 4, 4, (1, 2, 3)))
    other = design([conv(9, 3, 3)], (4, 4, 4, (1, 2, 3)))
    with pytest.raises(ConfigError, match=r"^test: the artifact's network differs from the "
                                          r"configuration's: wanted layer0 .*channels=8"):
        pack(config, random_network(other.network, 1))


def test_overflowing_bias_is_refused():
    config = design([conv(8, 3, 3)], (4, 4, 4, (1, 2, 3)))
    network = random_network(config.network, 1)
    layer = network.layers[0]
    bias = layer.bias.copy()
    bias[3] = Program(config).bias_peak + 1
    layer = Layer(layer.config, layer.weight, bias, layer.shift)
    network = Network(network.config, (layer,), network.classifier_weight,
                      network.classifier_bias)
    with pytest.raises(ConfigError, match=r"^layer0: accumulator could overflow: "
                                          r"wanted \|bias\| <= 32768, got 32769$"):
        pack(config, network)


def test_missing_precision_is_refused():
    with pytest.raises(ConfigError, match=r"^layer0: needs words of 3 bits, the array has "
                                          r"precisions \[1, 2\]$"):
        Program(design([conv(8, 3, 3)], (4, 4, 4, (1, 2))))
