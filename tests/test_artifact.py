"""The integer network: what it keeps, its digest, and the one line that each mistake gets."""

from dataclasses import replace

import numpy as np
import pytest

from export.artifact import Layer, Network
from export.config import ConfigError
from sim.samples import random_network
from tests.designs import conv, network

CONFIG = network([
    conv("a", 4, 3, 3, pool=True),
    conv("b", 6, 2, 2, groups=2),
    conv("c", 2, 1, 1, kernel=1)], height=5, width=4, channels=2, pad=7)


@pytest.fixture
def made() -> Network:
    return replace(random_network(CONFIG, 1), record={"accuracy": 0.5, "by": ["x"]})


def with_values(values, index, value) -> np.ndarray:
    values = values.copy()
    values[index] = value
    return values


def relayer(network, index, **changes) -> Network:
    layers = list(network.layers)
    layers[index] = replace(layers[index], **changes)
    return replace(network, layers=tuple(layers))


def test_digest_is_of_the_content(made):
    digests = {made.digest}
    for index, layer in enumerate(made.layers):
        weight = with_values(layer.weight, (0, 0, 0, 0), -layer.weight[0, 0, 0, 0] or 1)
        digests.add(relayer(made, index, weight=weight).digest)
        digests.add(relayer(made, index, bias=with_values(layer.bias, 1, 9)).digest)
        if layer.config.kind == "conv":
            digests.add(relayer(made, index, shift=layer.shift + 1).digest)
    digests.add(replace(made, config=CONFIG.model_copy(update={"pad": 8})).digest)
    assert len(digests) == 13
    assert replace(made, record={}).digest == made.digest


def test_digest_is_the_same_everywhere():
    config = network([conv("a", 1, 2, 1, kernel=1)], height=1, width=1, channels=1, classes=2)
    first, last = config.operations
    small = Network(config, (
        Layer(first, np.full((1, 1, 1, 1), -1, np.int8), np.array([300], np.int32), 4),
        Layer(last, np.array([1, -2], np.int8).reshape(2, 1, 1, 1), np.array([0, -1], np.int32))))
    assert small.digest == (
        "56d3d9fb7e6111195fdf1e017683fbe2832325d914fcd8afa4ab2637ab0fea0f")


def test_arrays_are_read_only_copies(made):
    weight = made.layers[0].weight.copy()
    layer = replace(made.layers[0], weight=weight)
    weight[:] = 0
    np.testing.assert_array_equal(layer.weight, made.layers[0].weight)
    for values in made.arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0


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
    (3, 3, r"classifier: weight must be one of -2, -1, 0, 1, 2, not 3"),
])
def test_weight_outside_its_alphabet_is_refused(made, index, value, message):
    weight = with_values(made.layers[index].weight, (-1, 0, 0, 0), value)
    with pytest.raises(ConfigError, match=rf"^{message}$"):
        replace(made.layers[index], weight=weight)


def test_bad_classifier_is_refused(made):
    for bits, value, message in [(2, 2, "-1, 0, 1, not 2"), (1, 0, "-1, 1, not 0")]:
        last = network([conv("a", 2, 3, 3)], classifier_bits=bits).operations[-1]
        weight = with_values(np.ones((3, 2, 1, 1), np.int8), (1, 1, 0, 0), value)
        with pytest.raises(ConfigError, match=rf"^classifier: weight must be one of {message}$"):
            Layer(last, weight, np.zeros(3, np.int32))
    for changes, message in [
            ({"weight": made.layers[3].weight.transpose(1, 0, 2, 3)},
             r"weight must be int8 3x\?x1x1, not int8 2x3x1x1"),
            ({"weight": made.layers[3].weight[:, :, 0, 0]},
             r"weight must be int8 3x\?x1x1, not int8 3x2"),
            ({"weight": np.ones((3, 5, 1, 1), np.int8)},
             "weight must have 2 input channels, not 5"),
            ({"bias": made.layers[3].bias[:2]}, "bias must be int32 3, not int32 2"),
            ({"shift": 1}, "shift must be an integer from 0 to 0, not 1")]:
        with pytest.raises(ConfigError, match=rf"^classifier: {message}$"):
            relayer(made, 3, **changes)


def test_layers_that_do_not_fit_are_refused(made):
    with pytest.raises(ConfigError, match=r"^network must have 4 layers, not 3$"):
        replace(made, layers=made.layers[:3])
    with pytest.raises(ConfigError, match=r"^a: layer must be configured as \(name='a'.*\), "
                                          r"not \(name='b'.* \.\.\.$"):
        replace(made, layers=made.layers[1:] + made.layers[:1])
    with pytest.raises(ConfigError, match=r"^b: weight must have 2 input channels, not 4$"):
        relayer(made, 1, weight=np.ones((6, 4, 3, 3), np.int8))


def test_sums_that_could_overflow_are_refused(made):
    rows = np.abs(made.layers[0].weight.astype(int)).sum((1, 2, 3))
    most = 2**31 - 1 - 255 * int(rows[2])
    for sign in (1, -1):
        relayer(made, 0, bias=with_values(made.layers[0].bias, 2, sign * most))
        with pytest.raises(ConfigError, match=r"^a: sums with bias must stay below 2147483648, "
                                              r"but can reach 2147483648$"):
            relayer(made, 0, bias=with_values(made.layers[0].bias, 2, sign * (most + 1)))
    # Codes of three bits reach 7; two channels of one bit reach 1 on each of 2 x 2 pixels.
    most = 2**31 - 1 - 7 * int(np.abs(made.layers[1].weight[0].astype(int)).sum())
    relayer(made, 1, bias=with_values(made.layers[1].bias, 0, -most))
    with pytest.raises(ConfigError, match=r"^b: sums with bias must stay below"):
        relayer(made, 1, bias=with_values(made.layers[1].bias, 0, -most - 1))
    most = 2**31 - 1 - 4 * int(np.abs(made.layers[3].weight[1].astype(int)).sum())
    relayer(made, 3, bias=with_values(made.layers[3].bias, 1, most))
    for bias in (most + 1, -2**31):
        with pytest.raises(ConfigError, match=r"^classifier: sums with bias must stay below"):
            relayer(made, 3, bias=with_values(made.layers[3].bias, 1, bias))


def test_a_select_is_checked_like_a_layer():
    config = network([conv("a", 8, 2, 2), conv("b", 16, 2, 2, skip="a", gate="mux",
                                               select_bits=1)])
    made = random_network(config, 1)
    assert [layer.config.name for layer in made.layers] == ["a", "b_select", "b", "classifier"]
    with pytest.raises(ConfigError, match=r"^b_select: weight must be one of -1, 1, not 0$"):
        relayer(made, 1, weight=0 * made.layers[1].weight)
    with pytest.raises(ConfigError, match=r"^b_select: weight must have 8 input channels, not 5$"):
        relayer(made, 1, weight=made.layers[1].weight[:, :5].copy())
