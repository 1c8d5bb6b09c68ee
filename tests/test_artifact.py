"""The integer network: its digest, and the one line that each mistake gets."""

from dataclasses import replace

import numpy as np
import pytest

from export.artifact import Layer, Network
from export.config import ConfigError
from export.network import NetworkConfig
from sim.samples import random_network
from tests.designs import conv
from tests.designs import network as network_of

CONFIG = network_of([conv("a", 4, 3, 3, pool=True), conv("b", 6, 2, 2, groups=2),
                     conv("c", 2, 1, 1, kernel=1)],
                    height=5, width=4, channels=2, classes=3, pad=7)


@pytest.fixture
def network() -> Network:
    return replace(random_network(CONFIG, 1), record={"accuracy": 0.5, "by": ["x"]})


def changed(values, index, value) -> np.ndarray:
    values = values.copy()
    values[index] = value
    return values


def relayer(network, index, **changes) -> Network:
    layers = list(network.layers)
    layers[index] = replace(layers[index], **changes)
    return replace(network, layers=tuple(layers))


def test_digest_is_of_the_content(network):
    digests = {network.digest}
    for index, layer in enumerate(network.layers):
        weight = changed(layer.weight, (0, 0, 0, 0), -layer.weight[0, 0, 0, 0] or 1)
        digests.add(relayer(network, index, weight=weight).digest)
        digests.add(relayer(network, index, bias=changed(layer.bias, 1, 9)).digest)
        if layer.config.kind == "conv":
            digests.add(relayer(network, index, shift=layer.shift + 1).digest)
    digests.add(replace(network, config=CONFIG.model_copy(update={"pad": 8})).digest)
    assert len(digests) == 13
    assert replace(network, record={}).digest == network.digest


def test_digest_is_the_same_everywhere():
    config = network_of([conv("a", 1, 2, 1, kernel=1)], height=1, width=1, channels=1)
    layer, classifier = config.operations
    network = Network(config, (
        Layer(layer, np.full((1, 1, 1, 1), -1, np.int8), np.array([300], np.int32), 4),
        Layer(classifier, np.array([1, -2], np.int8).reshape(2, 1, 1, 1),
              np.array([0, -1], np.int32))))
    assert network.digest == (
        "56d3d9fb7e6111195fdf1e017683fbe2832325d914fcd8afa4ab2637ab0fea0f")


def test_arrays_are_read_only_copies(network):
    weight = network.layers[0].weight.copy()
    layer = replace(network.layers[0], weight=weight)
    weight[:] = 0
    np.testing.assert_array_equal(layer.weight, network.layers[0].weight)
    for values in network.arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0


def test_peaks():
    assert [CONFIG.peak(operation) for operation in CONFIG.operations] == [255, 7, 3, 1]


# ---- constructing

WEIGHT = np.ones((4, 2, 3, 3), np.int8)
BIAS = np.zeros(4, np.int32)


@pytest.mark.parametrize("weight, bias, shift, message", [
    (WEIGHT * 3, BIAS, 0, r"weight must be one of -2, -1, 0, 1, 2, not 3"),
    (WEIGHT.astype(float), BIAS, 0, r"weight must be int8 4x\?x3x3, not float64 4x2x3x3"),
    (WEIGHT[:3], BIAS, 0, r"weight must be int8 4x\?x3x3, not int8 3x2x3x3"),
    (WEIGHT[..., 0], BIAS, 0, r"weight must be int8 4x\?x3x3, not int8 4x2x3"),
    (WEIGHT[..., :1], BIAS, 0, r"weight must be int8 4x\?x3x3, not int8 4x2x3x1"),
    (WEIGHT.tolist(), BIAS, 0, r"weight must be int8 4x\?x3x3, not a list"),
    (WEIGHT, BIAS.astype(np.int64), 0, r"bias must be int32 4, not int64 4"),
    (WEIGHT, BIAS[:3], 0, r"bias must be int32 4, not int32 3"),
    (WEIGHT, np.array(0, np.int32), 0, r"bias must be int32 4, not int32 scalar"),
    (WEIGHT, BIAS, -1, r"shift must be an integer from 0 to 15, not -1"),
    (WEIGHT, BIAS, 16, r"shift must be an integer from 0 to 15, not 16"),
    (WEIGHT, BIAS, 2.0, r"shift must be an integer from 0 to 15, not 2\.0"),
    (WEIGHT, BIAS, True, r"shift must be an integer from 0 to 15, not True"),
])
def test_bad_layer_is_refused(weight, bias, shift, message):
    with pytest.raises(ConfigError, match=rf"^a: {message}$"):
        Layer(CONFIG.operations[0], weight, bias, shift)


@pytest.mark.parametrize("index, value, message", [
    (1, 2, r"b: weight must be one of -1, 0, 1, not 2"),
    (1, -2, r"b: weight must be one of -1, 0, 1, not -2"),
    (2, 0, r"c: weight must be one of -1, 1, not 0"),
    (0, -128, r"a: weight must be one of -2, -1, 0, 1, 2, not -128"),
])
def test_weight_outside_its_alphabet_is_refused(network, index, value, message):
    weight = changed(network.layers[index].weight, (-1, 0, 0, 0), value)
    with pytest.raises(ConfigError, match=rf"^{message}$"):
        replace(network.layers[index], weight=weight)


def test_bad_classifier_is_refused(network):
    for bits, value, message in [(3, 3, "-2, -1, 0, 1, 2, not 3"), (2, 2, "-1, 0, 1, not 2"),
                                 (1, 0, "-1, 1, not 0")]:
        layer = network.layers[-1]
        weight = changed(np.ones_like(layer.weight), (1, 1), value)
        config = layer.config.model_copy(update={"weight_bits": bits})
        with pytest.raises(ConfigError, match=rf"^classifier: weight must be one of {message}$"):
            replace(layer, config=config, weight=weight)
    with pytest.raises(ConfigError, match=r"^classifier: weight must be int8 3x\?x1x1, not int8 "
                                          r"2x3x1x1$"):
        replace(layer, weight=layer.weight.transpose(1, 0, 2, 3))
    with pytest.raises(ConfigError, match=r"^classifier: bias must be int32 3, not int32 2$"):
        replace(layer, bias=layer.bias[:2])
    with pytest.raises(ConfigError, match=r"^classifier: shift must be an integer from 0 to 0, "):
        replace(layer, shift=2)


def test_layers_that_do_not_fit_are_refused(network):
    with pytest.raises(ConfigError, match=r"^network must have 4 layers, not 2$"):
        replace(network, layers=network.layers[:2])
    with pytest.raises(ConfigError, match=r"^a: layer must be configured as \(name='a'.*"):
        replace(network, layers=network.layers[1:2] * 2 + network.layers[2:])
    with pytest.raises(ConfigError, match=r"^b: weight must have 2 input channels, not 4$"):
        relayer(network, 1, weight=np.ones((6, 4, 3, 3), np.int8))


def test_sums_that_could_overflow_are_refused(network):
    rows = np.abs(network.layers[0].weight.astype(int)).sum((1, 2, 3))
    most = 2**31 - 1 - 255 * int(rows[2])
    for sign in (1, -1):
        relayer(network, 0, bias=changed(network.layers[0].bias, 2, sign * most))
        with pytest.raises(ConfigError, match=r"^a: sums with bias must stay below 2147483648, "
                                              r"but can reach 2147483648$"):
            relayer(network, 0, bias=changed(network.layers[0].bias, 2, sign * (most + 1)))
    # Codes of three bits reach 7; two channels of one bit reach 1 on each of 2 x 2 pixels.
    most = 2**31 - 1 - 7 * int(np.abs(network.layers[1].weight[0].astype(int)).sum())
    relayer(network, 1, bias=changed(network.layers[1].bias, 0, -most))
    with pytest.raises(ConfigError, match=r"^b: sums with bias must stay below"):
        relayer(network, 1, bias=changed(network.layers[1].bias, 0, -most - 1))
    last = network.layers[3]
    most = 2**31 - 1 - 4 * int(np.abs(last.weight[1].astype(int)).sum())
    relayer(network, 3, bias=changed(last.bias, 1, most))
    for bias in (most + 1, -2**31):
        with pytest.raises(ConfigError, match=r"^classifier: sums with bias must stay below"):
            relayer(network, 3, bias=changed(last.bias, 1, bias))


def test_sums_over_the_largest_maps_do_not_wrap():
    """4,096 channels of 7 on 2**20 positions: far beyond 64 bits if bounds were lifted."""
    config = NetworkConfig(height=1024, width=1024, channels=1, classes=2,
                           layers=[conv("a", 4096, 1, 3, kernel=1)])
    first, last = config.operations
    layer = Layer(first, np.ones((4096, 1, 1, 1), np.int8), np.zeros(4096, np.int32))
    head = Layer(last, np.full((2, 4096, 1, 1), 2, np.int8), np.zeros(2, np.int32))
    with pytest.raises(ConfigError, match=rf"but can reach {2 * 4096 * 7 * 2**20}$"):
        Network(config, (layer, head))
