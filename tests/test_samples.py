"""Networks for tests: random ones use every code, extreme ones reach every bound."""

import numpy as np
import pytest

from export.network import NetworkConfig
from sim.golden import conv, run
from sim.samples import extreme_network, random_images, random_network
from tests.designs import network


def config_of(size=8, channels=3, **layer) -> NetworkConfig:
    return network([{"name": name, "channels": 12, **layer} for name in "abc"],
                   height=size, width=size, channels=channels, classes=4)


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("size, options", [
    (8, {"pool": True}), (9, {"groups": 3}), (6, {"kernel": 1}), (1, {}), (17, {"groups": 3})])
def test_random_networks_use_every_code(bits, size, options):
    config = config_of(size, **options, weight_bits=bits, code_bits=bits)
    for seed in range(5):
        trace = run(random_network(config, seed), random_images(config, 100, seed + 50))
        for codes in trace.codes.values():
            shares = np.bincount(codes.ravel(), minlength=2**bits) / codes.size
            assert shares.min() > 0.005 and shares.max() < 0.8


def test_random_networks_tell_classes_apart():
    config = config_of(weight_bits=3, code_bits=3)
    classes = run(random_network(config, 1), random_images(config, 200, 2)).classes
    assert set(classes) == {0, 1, 2, 3}


def test_random_networks_depend_on_the_seed_alone():
    config = config_of(weight_bits=2, code_bits=2)
    assert random_network(config, 1).digest == random_network(config, 1).digest
    assert random_network(config, 1).digest != random_network(config, 2).digest


def test_random_images():
    images = random_images(config_of(5, weight_bits=1, code_bits=1), 9, 1)
    assert (images.shape, images.dtype) == ((9, 5, 5, 3), np.uint8)
    assert (images.min(), images.max()) == (0, 255)


@pytest.mark.parametrize("value, weights", [(-2, (-1, -1, -2)), (2, (1, 1, 2)), (1, (1, 1, 1)),
                                            (0, (-1, 0, 0)), (-9, (-1, -1, -2))])
def test_extreme_networks(value, weights):
    for bits, weight in zip((1, 2, 3), weights, strict=True):
        config = config_of(weight_bits=bits, code_bits=bits)
        extreme = extreme_network(config, value)
        *convs, classifier = extreme.layers
        assert all((layer.weight == weight).all() for layer in convs)
        assert (classifier.weight == max(-2, min(2, value))).all()
        for images in (np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)):
            trace = run(extreme, images)
            assert all((codes == 2**bits - 1).all() for codes in trace.codes.values())
        peak = 12 * 9 * (2**bits - 1)
        assert (conv(extreme.layers[1], trace.codes["a"], 0)[:, :, 1:-1, 1:-1]
                == weight * peak).all()
